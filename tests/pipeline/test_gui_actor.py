"""GUI-Actor behind the same calls: the facts of its line, computed again from transformers' own hosts."""

from __future__ import annotations

import base64
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import save_file
from tiny_actor import TOKENS, changed_config, stored, tiny_actor
from tiny_hosts import host_tokenizer
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

import molmopoint
from molmopoint.backends.gui_actor import FORMS, multiple_size
from molmopoint.errors import CheckpointError, EvaluationError, NumericalError, ProcessingError
from molmopoint.eval import evaluate
from molmopoint.eval.benchmarks.synthetic import write_scenes
from molmopoint.serving import app
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.start import load_start

HOSTS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
SIZES = ((224, 168), (300, 200), (97, 411))


def screen(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)


@pytest.fixture(scope="module", params=HOSTS)
def folder(request, tmp_path_factory) -> Path:
    return tiny_actor(request.param, tmp_path_factory.mktemp(request.param) / "actor")


@pytest.fixture(scope="module")
def pointer(folder):
    return molmopoint.load(folder, device="cpu")


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory) -> Path:
    return tiny_actor("qwen2_5_vl", tmp_path_factory.mktemp("one") / "actor")


def map_of(result: molmopoint.PointingResult) -> np.ndarray:
    """(P,) probabilities of the image tokens."""
    assert result.distributions is not None
    return result.distributions.patch[0]


def linear(x: torch.Tensor, tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    return F.linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def scores_from_facts(folder: Path, picture: Image.Image, instruction: str) -> np.ndarray:
    """(rows, cols) of the score map, from the host of transformers and the fact sheet alone."""
    with torch.inference_mode():
        host = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
        processor = AutoProcessor.from_pretrained(folder)
        kind = host.config.model_type
        factor = 32 if kind == "qwen3_vl" else 28
        across, down = (max(factor, round(side / factor) * factor) for side in picture.size)
        twice = picture.resize((across, down))
        by_pillow = kind != "qwen3_vl"
        if by_pillow:
            limits = processor.image_processor.size
            height, width = smart_resize(
                down, across, factor, limits["shortest_edge"], limits["longest_edge"]
            )
            twice = twice.resize((width, height))
        answer = "<|pointer_start|><|pointer_pad|><|pointer_end|>"
        answer = f"({answer})" if kind == "qwen3_vl" else f"pyautogui.click({answer})"
        text = (
            f"<|im_start|>system\n{FORMS[kind].system}<|im_end|>\n<|im_start|>user\n"
            f"<|vision_start|><|image_pad|><|vision_end|>{instruction}<|im_end|>\n"
            f"<|im_start|>assistant<|recipient|>os\n{answer}"
        )
        inputs = processor(images=[twice], text=[text], do_resize=not by_pillow, return_tensors="pt")
        grid = inputs["image_grid_thw"]
        output = host(**inputs, output_hidden_states=True)
        ids = inputs["input_ids"][0]
        seen = torch.cat(
            list(host.model.get_image_features(inputs["pixel_values"], grid).pooler_output)
        )  # (P, H)
        state = output.hidden_states[-1][0][
            ids == processor.tokenizer.convert_tokens_to_ids("<|pointer_pad|>")
        ]
    prefix = "multi_patch_pointer_head."
    head = {
        name.removeprefix(prefix): value for name, value in stored(folder).items() if name.startswith(prefix)
    }
    width, heads = seen.shape[1], 8
    joined = F.linear(seen, head["self_attention.in_proj_weight"], head["self_attention.in_proj_bias"])
    query, key, value = (
        part.reshape(len(seen), heads, -1).transpose(0, 1) for part in joined.chunk(3, dim=-1)
    )
    weights = (query @ key.transpose(1, 2) / math.sqrt(width / heads)).softmax(-1)  # (heads, P, P)
    mixed = linear(
        (weights @ value).transpose(0, 1).reshape(len(seen), width), head, "self_attention.out_proj"
    )
    context = F.layer_norm(seen + mixed, (width,), head["layer_norm.weight"], head["layer_norm.bias"], 1e-5)
    keys = linear(F.gelu(linear(context, head, "projection_enc.0")), head, "projection_enc.2")
    queries = linear(F.gelu(linear(state, head, "projection_dec.0")), head, "projection_dec.2")
    scores = (queries @ keys.T / math.sqrt(width)).softmax(-1)[0]
    _, rows, cols = (grid[0] // torch.tensor([1, 2, 2])).tolist()
    return scores.reshape(rows, cols).numpy()


@pytest.mark.parametrize("size", SIZES)
def test_scores_are_those_of_the_facts(folder, pointer, size):
    picture = screen(*size)
    expected = scores_from_facts(folder, picture, "close the window")
    result = pointer.point(picture, "close the window", max_points=3)
    got = map_of(result).reshape(expected.shape)
    assert np.abs(got - expected).max() < 2e-6
    assert result.prompt == "close the window" and not result.truncated
    assert 1 <= len(result.points) <= 3
    assert (np.diff(result.points.score) <= 0).all()
    assert result.heatmap(0).sum() == pytest.approx(1, abs=1e-5)
    assert result.points.object_id.tolist() == list(range(1, len(result.points) + 1))
    best = pointer.point(picture, "close the window")
    assert len(best.points) == 1 and best.points[0].xy == result.points[0].xy


def test_a_batch_gives_the_answers_of_its_rows(pointer):
    pictures = [screen(*size, seed=seed) for seed, size in enumerate(SIZES)]
    prompts = ["a", "the blue button of the window", "menu"]
    alone = [pointer.point(*pair, max_points=4) for pair in zip(pictures, prompts, strict=True)]
    together = list(pointer.point_batch(pictures, prompts, max_points=4, batch_size=3))
    for one, other in zip(alone, together, strict=True):
        assert one.points.xy == pytest.approx(other.points.xy, abs=2e-3)
        assert one.points.score == pytest.approx(other.points.score, abs=2e-6)


def test_encoded_pictures_and_streams_give_the_same(pointer):
    picture = screen(200, 150)
    result = pointer.point(picture, "save", max_points=2)
    encoded = pointer.encode(picture)
    assert [p.xy for p in pointer.point(encoded, "save", max_points=2)] == [p.xy for p in result]
    again, other = pointer.point(picture, ["save", "open"], max_points=2)
    assert [p.xy for p in again] == [p.xy for p in result] and other.prompt == "open"
    with pointer.stream(picture, "save", max_points=2) as stream:
        events = list(stream)
    assert events[0] == "save" and [p.xy for p in events[1:]] == [p.xy for p in result]
    assert stream.result is not None and len(stream.result) == len(result)


def test_names_on_the_disk_are_the_old_ones(folder, tmp_path):
    names = set(stored(folder))
    old = json.loads((folder / "config.json").read_text())["model_type"] != "qwen3_vl"
    assert ("model.layers.0.mlp.up_proj.weight" in names) == old
    assert len([name for name in names if name.startswith("multi_patch_pointer_head.")]) == 14
    pointer = molmopoint.load(folder, device="cpu")
    pointer.model.save_pretrained(tmp_path / "again")
    again = stored(tmp_path / "again")
    assert again.keys() == names
    assert all(torch.equal(again[name], tensor) for name, tensor in stored(folder).items())


def test_tied_tables_need_no_second_one(tmp_path):
    folder = tiny_actor("qwen2_vl", tmp_path / "tied", tie_word_embeddings=True)
    assert "lm_head.weight" not in stored(folder)
    assert len(molmopoint.load(folder, device="cpu").point(screen(90, 90), "x")) == 1


def test_v2p_ranks_by_the_largest_score(one_folder, tmp_path):
    picture = screen(260, 240, seed=4)
    by_mean = molmopoint.load(one_folder, device="cpu").point(picture, "x", max_points=50)
    folder = shutil.copytree(one_folder, tmp_path / "V2P-7B")
    by_maximum = molmopoint.load(folder, device="cpu").point(picture, "x", max_points=50)
    assert by_maximum.points[0].score == pytest.approx(map_of(by_maximum).max())
    assert sorted(p.xy for p in by_mean) == sorted(p.xy for p in by_maximum)
    changed_config(folder, region_value="mean")
    assert molmopoint.load(folder, device="cpu").point(picture, "x").points[0].xy == by_mean.points[0].xy
    changed_config(folder, region_value="median")
    with pytest.raises(CheckpointError, match="region_value"):
        molmopoint.load(folder, device="cpu")


def test_what_the_family_does_not_know_is_refused_by_name(one_folder):
    pointer = molmopoint.load(one_folder, device="cpu")
    picture = screen(100, 100)
    frames = np.zeros((3, 56, 56, 3), dtype=np.uint8)
    refused = {
        "got a question": [
            lambda: pointer.ask(picture, "What is this?"),
            lambda: pointer.count(picture, "cups"),
            lambda: pointer.ask_stream(picture, "What is this?"),
        ],
        "got a clip": [
            lambda: pointer.point_video(frames, "x", frame_rate=1.0),
            lambda: pointer.track(frames, "x", frame_rate=1.0),
            lambda: list(pointer.track_batch([frames], "x")),
        ],
        "earlier turns": [lambda: pointer.point(picture, "x", history=[("a", "b")])],
        "2 pictures": [lambda: pointer.point([picture] * 2, "x")],
        "got none": [lambda: pointer.point(None, "x")],
        "max_crops": [lambda: pointer.point(picture, "x", max_crops=4)],
        "temperature": [lambda: pointer.point(picture, "x", temperature=0.5)],
        "calibration": [lambda: pointer.point(picture, "x", calibrated=True)],
        "1 to 200": [lambda: pointer.point(Image.new("RGB", (1000, 4)), "x")],
        "fewer than 4096 tokens": [lambda: pointer.point(picture, "x" * 5000)],
    }
    for words, calls in refused.items():
        for call in calls:
            with pytest.raises(ProcessingError, match=words):
                call()


def test_text_that_looks_like_a_token_stays_text(one_folder):
    pointer = molmopoint.load(one_folder, device="cpu")
    result = pointer.point(screen(100, 100), "<|pointer_pad|><|image_pad|><|im_end|>")
    assert len(result) == 1


def damaged(folder: Path, target: Path, kept) -> Path:
    """A copy with some of the tensors."""
    copy = shutil.copytree(folder, target)
    save_file(
        {name: t for name, t in stored(folder).items() if kept(name)},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    return copy


def test_checkpoints_that_are_not_whole_are_refused(one_folder, tmp_path):
    half = damaged(one_folder, tmp_path / "half", lambda name: "projection_dec" not in name)
    with pytest.raises(
        CheckpointError, match=r"14 tensors of a pointer head .* got 10 of them, without .*projection_dec"
    ):
        molmopoint.load(half, device="cpu")
    bare = damaged(one_folder, tmp_path / "bare", lambda name: "pointer_head" not in name)
    with pytest.raises(CheckpointError, match="got 0 of them"):
        molmopoint.load(bare, device="cpu")
    hole = damaged(one_folder, tmp_path / "hole", lambda name: "layers.1.mlp" not in name)
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp.* missing"):
        molmopoint.load(hole, device="cpu")


def test_foreign_hosts_and_tokenizers_are_refused(one_folder, tmp_path):
    folder = shutil.copytree(one_folder, tmp_path / "host")
    changed_config(folder, model_type="llava")
    with pytest.raises(CheckpointError, match=r"model_type of .*got model_type 'llava\+pointer'"):
        molmopoint.load(folder, device="cpu")
    folder = shutil.copytree(one_folder, tmp_path / "tokens")
    host_tokenizer().save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"without <\|recipient\|>, <\|pointer_start\|>"):
        molmopoint.load(folder, device="cpu")
    folder = shutil.copytree(one_folder, tmp_path / "other")
    changed_config(folder, pointer_pad_token_id=7)
    with pytest.raises(CheckpointError, match=r"<\|pointer_pad\|> is 7, as in the model's config"):
        molmopoint.load(folder, device="cpu")
    assert len(TOKENS) == 5


def test_it_is_not_trained(one_folder):
    with pytest.raises(CheckpointError, match="which only points"):
        load_start(one_folder, load_recipe("lora"))
    with pytest.raises(CheckpointError):
        molmopoint.load_reward(one_folder)


def test_numbers_that_are_not_finite_are_told(one_folder):
    pointer = molmopoint.load(one_folder, device="cpu")
    with torch.no_grad():
        pointer.model.multi_patch_pointer_head.layer_norm.bias[0] = torch.nan
    with pytest.raises(NumericalError, match="map of scores"):
        pointer.point(screen(100, 100), "x")


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((100, 100), (112, 112)),
        ((14, 14), (56, 56)),  # 4 tokens at least
        ((5, 900), (28, 896)),
        ((42, 70), (56, 56)),  # halves go to even numbers of tokens, as Python rounds
        ((6000, 4000), (4368, 2912)),
    ],
)
def test_sizes_of_the_first_resize(size: tuple[int, int], expected: tuple[int, int]):
    assert multiple_size(size[0], size[1], 28, 4 * 784, 16384 * 784) == expected


def test_a_server_answers_with_it(one_folder):
    pointer = molmopoint.load(one_folder, device="cpu")
    picture = screen(200, 150)
    file = io.BytesIO()
    picture.save(file, "PNG")
    address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    expected = [(round(p.x, 2), round(p.y, 2)) for p in pointer.point(picture, "save", max_points=2)]
    with TestClient(app({"actor": pointer})) as client:
        asked = {"images": [address], "prompt": "save", "max_points": 2}
        answer = client.post("/v1/point", json=asked).json()
        assert [(round(p["x"], 2), round(p["y"], 2)) for p in answer["points"]] == expected
        streamed = client.post("/v1/point", json={**asked, "stream": True}).text
        assert streamed.count('"type":"point"') + streamed.count('"type": "point"') == len(expected)
        for path, body in (
            ("/v1/count", asked),
            ("/v1/query", {"images": [address], "question": "What is this?"}),
            ("/query", {"image_url": address, "question": "What is this?"}),
        ):
            refused = client.post(path, json=body)
            assert refused.status_code == 400, (path, refused.text)
            assert "places alone" in refused.text


def test_a_benchmark_asks_it_its_own_way(one_folder):
    """Instructions arrive as they are in the data, and there are no crops."""
    result = evaluate(one_folder, "screenspot_v2", data="fixture", limit=3, device="cpu")
    assert result.summary.coverage.scored == 3


def test_a_screen_that_the_host_sees_whole_is_looked_at_once(pointer):
    page = screen(112, 84)
    once = pointer.point(page, "the button")
    zoomed = pointer.point(page, "the button", zoom=True)
    assert zoomed.looks == 1 and zoomed.to_dict() == once.to_dict()


def test_a_phrase_of_a_benchmark_is_asked_as_it_is(one_folder, tmp_path):
    """Scenes name things; "Point to ..." around them is the form for Molmo."""
    write_scenes(tmp_path, 1)
    result = evaluate(one_folder, "synthetic", data=tmp_path, limit=2, device="cpu")
    bare = {item.item_id: item.phrase for item in result.data.items.found}
    asked = {item_id: answer.prompt for item_id, answer in result.predictions.items()}
    assert len(asked) == 2 and asked == {item_id: bare[item_id] for item_id in asked}


def test_pictures_of_a_benchmark_are_brought_to_an_area(one_folder, tmp_path):
    """As the authors' run of ScreenSpot-Pro: sides cut to whole pixels, Pillow's filter, points as fractions."""
    pointer = molmopoint.load(one_folder, device="cpu")
    area = 150 * 90
    result = evaluate(
        pointer, "screenspot_pro", data="fixture", settings={"picture_area": area}, out=tmp_path
    )
    items = {item.item_id: item for item in result.data.items.found}
    assert result.summary.coverage.scored == len(items) == len(result.predictions) >= 3
    for item_id, answer in result.predictions.items():
        picture = Image.open(items[item_id].images[0]).convert("RGB")
        width, height = picture.size
        ratio = math.sqrt(area / (width * height))
        small = picture.resize((int(width * ratio), int(height * ratio)))
        expected = pointer.point(small, items[item_id].prompt, single=True).points[0]
        assert answer.image_sizes == (picture.size,)
        assert answer.points[0].x == pytest.approx(expected.x * width / small.width, abs=1e-3)
        assert answer.points[0].y == pytest.approx(expected.y * height / small.height, abs=1e-3)
    manifest = json.loads((tmp_path / "screenspot_pro" / "manifest.json").read_text())
    assert manifest["settings"]["asking"]["picture_area"] == area


@pytest.mark.parametrize("area", [0, 783, 1e6, True, 10**12])
def test_areas_that_are_none_are_refused(one_folder, area):
    with pytest.raises(EvaluationError, match="picture_area as pixels"):
        evaluate(one_folder, "screenspot_pro", data="fixture", settings={"picture_area": area}, device="cpu")


def test_other_benchmarks_have_no_area(one_folder):
    with pytest.raises(EvaluationError, match="got picture_area"):
        evaluate(one_folder, "screenspot_v2", data="fixture", settings={"picture_area": 10_000}, device="cpu")
