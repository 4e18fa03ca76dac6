"""Another location grid is one config field: `patch_location`. Points there and back, in memory and in files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny import random_model, tiny_config
from toy_processor import picture, toy_processor

from molmopoint.errors import CheckpointError
from molmopoint.geometry import cell_width, points_to_triples, triples_to_points
from molmopoint.pipeline import Pointer, PointingResult, load
from molmopoint.processing import MolmoPointProcessor
from molmopoint.tokens import IMAGE_PLACEHOLDER, IMAGE_START, RELEASED_TOKENS, ExtendedVocabulary, Kind

STEPS = 48


def model_for(processor: MolmoPointProcessor, patch_location: str | None):
    """A tiny model with the vocabulary of a processor, eager to point and to write object ids."""
    tokenizer = processor.tokenizer
    first = tokenizer.convert_tokens_to_ids(IMAGE_START)
    text = tiny_config().text_config.to_dict() | {
        "vocab_size": first,
        "additional_vocab_size": len(RELEASED_TOKENS),
    }
    model = random_model(text_config=text, patch_location=patch_location)
    with torch.no_grad():
        for digit in tokenizer.encode("123", add_special_tokens=False):
            model.lm_head.weight[digit] *= 2
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = (
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    )
    return model


def triples_of(result: PointingResult) -> np.ndarray:
    assert result.points.triples is not None
    return result.points.triples


def pointer_with(patch_location: str | None) -> Pointer:
    processor = toy_processor(patch_location=patch_location)
    return Pointer(model_for(processor, patch_location), processor)


@pytest.mark.parametrize("patch_location", ["5x5", "3x3", "1x1", None])
def test_there_and_back(patch_location):
    config = tiny_config(patch_location=patch_location)
    processor = toy_processor(patch_location=config.patch_location)
    sizes = [(131, 77), (64, 200)]
    output = processor(
        text=IMAGE_PLACEHOLDER * 2,
        images=[picture(h, w) for w, h in sizes],
        return_tensors="pt",
        return_pointing_metadata=True,
    )
    metadata = output["pointing_metadata"][0]
    assert metadata.location_grid == config.location_grid and metadata.num_locations == config.num_locations

    random = np.random.default_rng(0)
    group = random.integers(0, 2, 200)
    xy = random.random((200, 2)) * np.array(sizes)[group]
    triples = points_to_triples(group, xy, metadata)
    back_group, back_xy = triples_to_points(triples, metadata)
    assert (back_group == group).all()
    assert (points_to_triples(back_group, back_xy, metadata) == triples).all()
    cells = max(config.location_grid, 1)
    patch = np.array(
        [
            [size[0] / m.shape[1], size[1] / m.shape[0]]
            for size, m in zip(sizes, metadata.patch_maps, strict=True)
        ]
    )[group]
    # half a cell; three cells of 0.33 leave a hundredth of the ViT patch over
    assert (np.abs(back_xy - xy) <= patch * (0.5 / cells + abs(1 - cells * cell_width(cells))) + 1e-9).all()
    if config.num_locations:
        assert (
            set(triples[:, 2]) <= set(range(config.num_locations))
            and len(set(triples[:, 2])) == config.num_locations
        )


@pytest.mark.parametrize("patch_location", ["5x5", None])
def test_answers_have_as_many_locations(patch_location):
    pointer = pointer_with(patch_location)
    pictures = [picture(60, 90), picture(120, 60), picture(150, 200)]
    results = [pointer.point(image, "the cats", max_new_tokens=STEPS) for image in pictures]
    assert sum(len(result.points) for result in results) >= 3
    for image, result in zip(pictures, results, strict=True):
        assert result.invalid == 0 and ((result.points.xy >= 0) & (result.points.xy <= image.size)).all()
        triples = triples_of(result)
        locations = triples[:, 2]
        assert ((locations >= 0) & (locations < 25)).all() if patch_location else (locations == -1).all()
        again = points_to_triples(result.points.group, result.points.xy, result.metadata)
        assert (again == triples).all()
        # `<POINT_n>` of the text mean the same as the ids
        assert (
            pointer.processor.decode_points(result.raw_text, result.metadata).xy.tolist()
            == result.points.xy.tolist()
        )


def test_the_last_cell_survives_the_extended_vocabulary():
    processor = toy_processor(patch_location="5x5")
    metadata = processor(text=IMAGE_PLACEHOLDER, images=[picture(70, 70)], return_pointing_metadata=True)[
        "pointing_metadata"
    ][0]
    vocabulary = ExtendedVocabulary(
        processor.extended_start, metadata.num_patches, metadata.num_slots, metadata.num_locations
    )
    triple = points_to_triples([0], [(70, 70)], metadata)[0].tolist()
    assert triple[2] == 24
    ids = [
        vocabulary.encode(kind, index)
        for kind, index in zip((Kind.PATCH, Kind.SUBPATCH, Kind.LOCATION), triple, strict=True)
    ]
    points = processor.decode_points(
        [*ids, *processor.tokenizer.encode("1", add_special_tokens=False)], metadata
    )
    assert points.triples is not None and points.triples.tolist() == [triple]
    assert points.xy.tolist() == [[pytest.approx(70 - 70 / 5 / 10)] * 2]


def test_the_field_of_config_json_is_all_a_folder_needs(tmp_path):
    """What config.json says wins over processor files, which released folders have without the field."""
    pointer = pointer_with("5x5")
    pointer.model.save_pretrained(tmp_path)
    pointer.processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    settings["patch_location"] = "3x3"
    (tmp_path / "processor_config.json").write_text(json.dumps(settings))

    loaded = load(tmp_path)
    assert loaded.model.config.patch_location == loaded.processor.patch_location == "5x5"
    location = loaded.model.model.point_predictor.location
    assert location is not None and location.projection.weight.shape[0] == 25
    image = picture(60, 90)
    here, there = (p.point(image, "the cats", max_new_tokens=STEPS) for p in (pointer, loaded))
    assert len(here.points) and triples_of(here).tolist() == triples_of(there).tolist()
    assert here.points.xy.tolist() == there.points.xy.tolist()


def test_model_and_processor_must_agree():
    processor = toy_processor(patch_location="3x3")
    with pytest.raises(CheckpointError, match="5x5"):
        Pointer(model_for(processor, "5x5"), processor)
