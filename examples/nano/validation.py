"""A quick look at how well the model points while it trains: real decoding on a few scenes that are neither trained nor scored."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import torch

from molmopoint.data.synthetic import sample_scene
from molmopoint.decoding import read_answer
from molmopoint.geometry import PointingMetadata
from molmopoint.metrics import match_points
from molmopoint.modeling import MolmoPointForConditionalGeneration
from nano.cache import patchify, resized
from nano.pointing import Examples, pooling_table
from nano.settings import GRID, LOCATIONS

_SEED = 31_337


def metadata_of(size: tuple[int, int]) -> PointingMetadata:
    """What the processor would record for a picture of (width, height) with one tile."""
    table = pooling_table().numpy()
    tiles = len(table) // 2
    patch_map = np.arange(GRID * GRID).reshape(GRID, GRID)
    indexable = np.arange(len(table)) >= tiles
    return PointingMetadata(table, indexable, [patch_map], [size], location_grid=LOCATIONS)


@torch.no_grad()
def validate(model: MolmoPointForConditionalGeneration, examples: Examples, num_scenes: int = 40, rows: int = 40) -> dict[str, float]:
    """Mean F1, exact count and F1 by kind over all questions of `num_scenes` scenes."""
    model.eval()
    scenes = [sample_scene(np.random.default_rng([_SEED, i])) for i in range(num_scenes)]
    asked = [(scene, query) for scene in scenes for query in scene.queries]
    scores = defaultdict(list)
    for first in range(0, len(asked), rows):
        part = asked[first : first + rows]
        prompts = [torch.cat([examples.trunk_ids, torch.from_numpy(examples.prompt(query.prompt).ids)]) for _, query in part]
        length = max(map(len, prompts))
        pad = examples.tokenizer.pad_token_id
        ids = torch.stack([torch.nn.functional.pad(p, (length - len(p), 0), value=pad) for p in prompts])
        pixels = patchify(torch.stack([resized(scene) for scene, _ in part]))
        offsets = torch.arange(len(part))[:, None, None] * GRID * GRID
        pooling = (examples.pooling[None] + offsets).flatten(0, 1)
        with torch.autocast("cpu", torch.bfloat16):
            answers = model.generate(
                input_ids=ids, attention_mask=(ids != pad).long(), pixel_values=pixels, image_token_pooling=pooling,
                max_new_tokens=80, do_sample=False, pad_token_id=pad, eos_token_id=examples.tokenizer.eos_token_id,
            )  # fmt: skip
        for (scene, query), answer in zip(part, answers[:, length:], strict=True):
            ended = (answer == examples.tokenizer.eos_token_id).nonzero()
            answer = answer[: int(ended[0])] if len(ended) else answer
            found = read_answer(answer, metadata_of(scene.image.size), model.config.extended_start, examples.tokenizer.decode)
            match = match_points(found.points.xy, [target.mask for target in query.targets])
            for key in ("f1", f"f1_{query.kind}", "f1_held_out" if query.held_out else "f1_seen"):
                scores[key].append(match.f1)
            scores["count"].append(float(match.exact_count))
    model.train()
    return {key: float(np.mean(values)) for key, values in sorted(scores.items())}
