"""Arguments of `graft` that cannot be, and damaged files of grafts: told with a remedy, before weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_hosts import tiny_host

import molmopoint
from molmopoint.checkpoints import graft
from molmopoint.errors import CheckpointError, MolmoPointError


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A host, and a graft on it."""
    place = tmp_path_factory.mktemp("odd")
    model, processor = tiny_host("qwen2_5_vl")
    model.save_pretrained(place / "host")
    processor.save_pretrained(place / "host")
    graft(place / "host", point_tokens=300, patch_embed_dim=32, out=place / "graft")
    return place / "host", place / "graft"


@pytest.mark.parametrize(
    "arguments",
    [
        *({"patch_embed_dim": value} for value in (0, -2, 7, "512", float("nan"), None, 10**12, True)),
        *({"location_grid": value} for value in (-1, "3", None, 1.5, 1000, True)),
        *({"point_tokens": value} for value in (0, -1, "x", None, 2.5, 10**12)),
        *({"seed": value} for value in (-1, "a", None, 2**70, 1.5)),
        *({"out": value} for value in (5, "", "a\0b", b"x")),
    ],
)
def test_arguments_that_cannot_be(folders, monkeypatch, arguments: dict[str, Any]):
    monkeypatch.setattr(
        "molmopoint.checkpoints.grafting._read_host", lambda *_: pytest.fail("weights were read")
    )
    with pytest.raises(CheckpointError, match=f"expected (an even )?{next(iter(arguments))} .*; "):
        graft(folders[0], **arguments)


def test_the_host_is_not_written_over(folders, tmp_path):
    host, _ = folders
    before = (host / "config.json").read_bytes()
    link = tmp_path / "link"
    link.symlink_to(host)
    for out in (host, link, host / ".." / host.name):
        with pytest.raises(CheckpointError, match="whose weights would be lost"):
            graft(host, out=out)
    assert (host / "config.json").read_bytes() == before
    file = tmp_path / "file"
    file.write_text("kept")
    for out in (file, file / "below"):
        with pytest.raises(CheckpointError, match="expected out as a folder"):
            graft(host, out=out)
    assert file.read_text() == "kept"


def damaged(source: Path, target: Path, file: str, path: str, value: Any) -> Path:
    """A copy with one field of another value."""
    shutil.copytree(source, target)
    fields = json.loads((target / file).read_text())
    place = fields
    *outer, name = path.split(".")
    for key in outer:
        place = place[key]
    place[name] = value
    (target / file).write_text(json.dumps(fields))
    return target


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("patch_embed_dim", 10**9),
        ("patch_location", [3]),
        ("patch_location", "3x4"),
        ("patch_logit_scale", []),
        ("rotary_theta", []),
        ("rotary_theta", -1),
        ("location_input", "other"),
        ("mask_patches", None),
        ("host_config.text_config.num_hidden_layers", "x"),
        ("host_config.vision_config.depth", float("nan")),
        ("host_config.vision_config", True),
        ("host_config.dtype", float("nan")),
        ("host_config.text_config.num_key_value_heads", 10**15),
        ("host_config.vision_config.num_heads", 0),
    ],
)
def test_configs_that_cannot_be(folders, tmp_path, path, value):
    source = damaged(folders[1], tmp_path / "model", "config.json", path, value)
    with pytest.raises(CheckpointError, match=r"expected [\s\S]+; "):
        molmopoint.load(source, device="cpu")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("picture_format", float("nan")),
        ("picture_format", "{}{}"),
        ("picture_format", "{0.__class__}"),
        ("token_side", 0),
        ("token_side", "2"),
        ("tile_patches", 10**9),
        ("image_processor.merge_size", -1),
        ("image_processor.merge_size", 0),
        ("image_processor.image_std", {}),
        ("image_processor.rescale_factor", "x"),
        ("image_processor.size.shortest_edge", "x"),
    ],
)
def test_processors_that_cannot_be(folders, tmp_path, path, value):
    source = damaged(folders[1], tmp_path / "model", "processor_config.json", path, value)
    with pytest.raises(MolmoPointError, match=r"expected [\s\S]+; "):
        molmopoint.load(source, device="cpu").point(Image.new("RGB", (90, 60)), "cups", max_new_tokens=2)
