"""The embedded model in clips it has not seen: a loose bound, far below the scores of its card."""

from __future__ import annotations

import numpy as np

import molmopoint
from molmopoint.data.synthetic import sample_clip
from molmopoint.metrics.matching import match_points, points_inside
from molmopoint.metrics.tracking import TrackedFrame, hota


def test_it_points_and_tracks():
    pointer = molmopoint.load("nano", device_map="cpu")
    found, followed = [], []
    for i in range(6):
        clip = sample_clip(np.random.default_rng([77, i]))
        for query in clip.queries:
            if query.kind == "motion" or not query.targets:
                continue
            points = pointer.point_video(
                clip.frames, query.request(2), timestamps=clip.timestamps.tolist()
            ).points
            frames = np.abs(np.asarray(points.group, dtype=float)[:, None] - clip.timestamps).argmin(axis=1)
            if query.style == "pointing":
                found.append(
                    match_points(
                        points.xy, [np.asarray(target.masks.any(axis=0)) for target in query.targets]
                    ).f1
                )
                continue
            moments = []
            for frame, here in enumerate(np.arange(len(clip.timestamps))[:, None] == frames):
                targets = [target for target in query.targets if target.visible[frame]]
                similarity = np.array(
                    [points_inside(points.xy[here], target.masks[frame]) for target in targets], dtype=float
                )
                _, once = np.unique(points.object_id[here], return_index=True)
                similarity = similarity.reshape(len(targets), int(here.sum()))[:, once]
                moments.append(
                    TrackedFrame(list(map(id, targets)), points.object_id[here][once].tolist(), similarity)
                )
            followed.append(hota(moments).score)
    assert len(found) > 5 and len(followed) > 5
    assert np.mean(found) > 0.6, found
    assert np.mean(followed) > 0.45, followed
