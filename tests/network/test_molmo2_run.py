"""A whole run of native Molmo2: rows of data, packing, trainer, score by `generate`, and the saved model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_molmo2 import molmo2_pointing_processor, random_molmo2
from toy_processor import frames, picture, toy_tokenizer
from transformers import Molmo2ForConditionalGeneration

from molmopoint.backends.molmo2 import Molmo2Backend
from molmopoint.data.records import Record, RecordPoint
from molmopoint.errors import CheckpointError
from molmopoint.processing.rows import collate, pack
from molmopoint.training.packed_dataset import PackCollator, PackedDataset
from molmopoint.training.packing import PackingLimits
from molmopoint.training.pointing import pointing_trainer
from molmopoint.training.prepare import ExamplePreparer, rules_of
from molmopoint.training.recipe import Data, Groups, GroupSettings, Logging, Recipe, Saving, Scoring
from molmopoint.training.sampling import DrawOrder
from molmopoint.training.scoring import HeldOutScore
from molmopoint.training.sources import Example
from molmopoint.training.trainer import RunTrainer
from molmopoint.training.trees import format_tree, read_media, training_row
from molmopoint.training.vocabulary_rows import join_output_rows

RECIPE = Recipe(
    steps=4, epochs=None, dtype="float32", gradient_checkpointing=True, seed=3, data=Data(seed=1),
    groups=Groups(*(GroupSettings(5e-3, 1) for _ in range(4))), logging=Logging(every=1, to=()), saving=Saving(every=2, keep=1),
    scoring=Scoring(every=0, max_new_tokens=64, batch_size=2),
)  # fmt: skip


class Pictures:
    """Two noise pictures with two requests each, and rows of text."""

    name = "toy"

    @property
    def groups(self) -> list[tuple[Record, ...]]:
        return [self.example(i).records for i in range(len(self))]

    def __len__(self) -> int:
        return 3

    def example(self, index: int, epoch: int = 0) -> Example:
        if index == 2:
            return Example((Record(1, prompt="Two and two?", answer="4"),))
        points = [(RecordPoint(0.1 + 0.5 * index, y), RecordPoint(0.75, y)) for y in (0.25, 0.5)]
        records = [
            Record(1, ("a",), prompt=f"Point {i}", label="it", points=places, coords="norm1")
            for i, places in enumerate(points)
        ]
        return Example(tuple(records), (picture(70, 80, index),))


@pytest.fixture(scope="module")
def backend() -> Molmo2Backend:
    return Molmo2Backend(molmo2_pointing_processor(), max_crops=2)


def trainer_of(backend: Molmo2Backend, out, recipe: Recipe) -> RunTrainer:
    prepare = ExamplePreparer([Pictures()], backend, rules_of(recipe.data), 600)
    dataset = PackedDataset(DrawOrder((3,), seed=1), prepare, PackingLimits(600, 8, pool_size=2, max_stay=4))
    collator = PackCollator(backend.patch_token_id, backend.processor.tokenizer.pad_token_id)
    return pointing_trainer(
        random_molmo2(1), recipe, dataset, collator, out, steps=recipe.steps or 1, sources=("toy",)
    )


def test_a_run_ends_as_a_native_model(backend: Molmo2Backend, tmp_path):
    whole: Any = trainer_of(backend, tmp_path / "whole", RECIPE)
    before = {name: parameter.detach().clone() for name, parameter in whole.model.named_parameters()}
    whole.train()
    losses = [
        json.loads(line).get("loss") for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()
    ]
    losses = [loss for loss in losses if loss is not None]
    assert len(losses) == 4 and losses[-1] < losses[0]
    moved = {
        name for name, parameter in whole.model.named_parameters() if not torch.equal(parameter, before[name])
    }
    assert {name for name in before if name not in moved} == {"model.language_model.embed_tokens.base"}

    model = whole.model.eval()
    join_output_rows(model)
    model.save_pretrained(tmp_path / "model")
    native = Molmo2ForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert all(torch.equal(tensor, native.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_the_score_asks_and_reads(backend: Molmo2Backend):
    settings = replace(RECIPE.scoring, max_new_tokens=8)
    scores = HeldOutScore({"": Pictures()}, backend, settings)(random_molmo2(1))
    assert scores["point_f1"] == 0 and 0 <= scores["under_count"] <= 1
    assert np.isfinite(list(scores.values())).all()


def clip_file(folder: Path) -> Path:
    """Two seconds of noise at 10 frames a second."""
    av = pytest.importorskip("av")
    path = folder / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 120, 80, "yuv420p"
        for frame in frames(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_clips_are_tracked_and_packed_with_pictures(backend: Molmo2Backend, tmp_path):
    points = tuple(RecordPoint(x, 2 * x, t=x / 20, object_id=7) for x in (10, 30))
    record = Record(1, video="a.mp4", label="dog", points=points, coords="pixel", style="track")
    clip_example = Example((record,), clip=clip_file(tmp_path))
    media = read_media(backend, clip_example)
    times: Any = media.metadata.timestamps
    assert tuple(media.metadata.image_sizes) == ((120, 80),) and times.tolist() == [0, 0.5, 1, 1.5, 2]
    text = backend.processor.tokenizer.decode(backend.requests.build_trunk(media).input_ids)
    assert text.startswith("<|im_end|>0.0 <frame_start><im_patch>") and text.count(" 1.5 <frame_start>") == 1
    conversations = format_tree([record], backend.writer_of(media), np.random.default_rng(0))
    assert conversations[0].answer == ('<tracks coords="0.5 1 083 250;1.5 1 250 750">dog</tracks>',)

    examples = [clip_example, Pictures().example(0)]
    rows = [training_row(backend, example, np.random.default_rng(0), max_length=600) for example in examples]
    model = random_molmo2()
    packed = model(**collate([pack(rows, backend.patch_token_id)], 0)).logits
    alone = torch.cat([model(**collate([row], 0)).logits for row in rows])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)


def test_a_tokenizer_without_the_special_tokens_is_refused():
    bare = molmo2_pointing_processor()
    bare.tokenizer = toy_tokenizer(["<im_patch>"], points=0)
    with pytest.raises(CheckpointError, match="im_col"):
        Molmo2Backend(bare)
