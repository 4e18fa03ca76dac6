"""The processor: token layout, batches of every mixture, metadata, clips, files, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_processor import POINT_NAMES, TEMPLATE, frames, picture, toy_processor, toy_tokenizer
from transformers.video_utils import VideoMetadata

from molmopoint import tokens
from molmopoint.errors import ProcessingError
from molmopoint.geometry import points_to_triples, triples_to_points
from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
from molmopoint.tokens import NO_MORE_POINTS, ExtendedVocabulary, Kind
from molmopoint.video import Clip

PROCESSOR = toy_processor()
TOKENIZER = PROCESSOR.tokenizer
ONE, TWO, THREE = picture(100, 140), picture(60, 200), picture(90, 50)
CLIP = Clip(frames(5), np.array([0.0, 0.5, 1.0, 1.5, 2.04]))
PROMPTS = ["<|image|>one", "no picture", "<|image|>a<|image|>b", "<|video|>clip"]


def run(text: Any, images: Any = None, videos: Any = None, **kwargs: Any) -> Any:
    return PROCESSOR(
        text=text, images=images, videos=videos, return_tensors="pt", return_pointing_metadata=True, **kwargs
    )


def words(ids: Any) -> str:
    return TOKENIZER.decode(ids)


def without_padding(output: Any, row: int) -> list[int]:
    return output["input_ids"][row][output["attention_mask"][row].bool()].tolist()


def test_layout_of_a_picture() -> None:
    out = run("<|image|>Where?", THREE)
    low_rows, low_cols, rows, cols = out["image_grids"][0].tolist()
    low = "<low_res_im_start>" + "<im_low>" * low_rows * low_cols + "<im_end>"
    canvas = "<im_start>" + ("<im_patch>" * cols + "<im_col>") * rows + "<im_end>"
    assert words(out["input_ids"][0]) == f"<|im_end|>{low}{canvas}Where?"
    types = out["mm_token_type_ids"][0]
    assert types.tolist() == [
        int(t in tokens.VISION_TOKENS) for t in TOKENIZER.convert_ids_to_tokens(out["input_ids"][0])
    ]


def test_layout_of_a_clip() -> None:
    out = run("<|video|>Where?", videos=CLIP)
    frame = "<frame_start>" + "<im_patch>" * 4 + "<frame_end>"
    assert (
        words(out["input_ids"][0])
        == "<|im_end|>" + " ".join(f"{t} {frame}" for t in ("0.0", "0.5", "1.0", "1.5", "2.0")) + "Where?"
    )
    assert out["pointing_metadata"][0].timestamps.tolist() == [0.0, 0.5, 1.0, 1.5, 2.04], (
        "printed times are rounded, kept ones are not"
    )


def test_the_first_token_is_not_doubled() -> None:
    assert words(run("<|im_end|>hi")["input_ids"][0]) == words(run("hi")["input_ids"][0]) == "<|im_end|>hi"


@pytest.mark.parametrize(("low", "token"), [(True, tokens.LOW_RES_PATCH), (False, tokens.IMAGE_PATCH)])
def test_token_of_the_global_crop(low: bool, token: str) -> None:
    processor = toy_processor(use_low_res_token_for_global_crops=low)
    out = processor(text="<|image|>", images=THREE, return_pointing_metadata=True)
    assert TOKENIZER.convert_ids_to_tokens(out["input_ids"][0])[2] == token
    assert bool(out["pointing_metadata"][0].indexable[0]) is not low


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("nested", [True, False])
def test_a_mixed_batch_is_its_samples(side: str, nested: bool) -> None:
    images = [[ONE], None, [TWO, THREE], []] if nested else [ONE, TWO, THREE]
    videos = [None, None, None, [CLIP]] if nested else [CLIP]
    batch = run(PROMPTS, images, videos, padding_side=side)
    alone = [
        run(PROMPTS[0], ONE),
        run(PROMPTS[1]),
        run(PROMPTS[2], [TWO, THREE]),
        run(PROMPTS[3], videos=[CLIP]),
    ]
    assert len({len(row) for row in batch["input_ids"]}) == 1
    for row, sample in enumerate(alone):
        assert without_padding(batch, row) == sample["input_ids"][0].tolist()
        ours, theirs = batch["pointing_metadata"][row], sample["pointing_metadata"][0]
        assert np.array_equal(ours.pooling, theirs.pooling)
        assert np.array_equal(ours.indexable, theirs.indexable)
        assert all(np.array_equal(a, b) for a, b in zip(ours.patch_maps, theirs.patch_maps, strict=True))
        assert ours.image_sizes == theirs.image_sizes
    assert torch.equal(batch["pixel_values"], torch.cat([alone[0]["pixel_values"], alone[2]["pixel_values"]]))
    assert torch.equal(batch["pixel_values_videos"], alone[3]["pixel_values_videos"])
    offset = 25 * len(alone[0]["pixel_values"])
    expected = torch.cat(
        [
            alone[0]["image_token_pooling"],
            torch.where((t := alone[2]["image_token_pooling"]) >= 0, t + offset, -1),
        ]
    )
    assert torch.equal(batch["image_token_pooling"], expected), "the table counts over the call"


def test_metadata_fits_the_token_ids() -> None:
    out = run(PROMPTS, [ONE, TWO, THREE], [CLIP])
    ids = TOKENIZER.convert_tokens_to_ids([tokens.IMAGE_PATCH, tokens.LOW_RES_PATCH])
    for row, known in enumerate(out["pointing_metadata"]):
        of_images = [i for i in without_padding(out, row) if i in ids]
        assert [i == ids[0] for i in of_images] == known.indexable.tolist()
    assert [known.image_sizes for known in out["pointing_metadata"]] == [
        ((140, 100),),
        (),
        ((200, 60), (50, 90)),
        ((120, 80),),
    ]
    assert [known.num_slots for known in out["pointing_metadata"]] == [4, 0, 4, 9]


def test_points_there_and_back() -> None:
    out = run(PROMPTS, [ONE, TWO, THREE], [CLIP])
    for row, group in ((0, [0]), (2, [0, 1]), (3, [0.5, 2.04])):
        known = out["pointing_metadata"][row]
        group, xy = np.array(group), np.array([[11.0, 22.0], [40.0, 31.0]])[: len(group)]
        triples = points_to_triples(group, xy, known)
        vocabulary = ExtendedVocabulary(
            PROCESSOR.extended_start, known.num_patches, known.num_slots, known.num_locations
        )
        names = [
            "".join(
                TOKENIZER.decode([vocabulary.encode(kind, int(n))])
                for kind, n in zip(list(Kind)[1:], triple, strict=True)
            )
            for triple in triples
        ]
        listed = "".join(f"{name}{i}" for i, name in enumerate(names, 1))
        end = TOKENIZER.decode([vocabulary.encode(Kind.PATCH, NO_MORE_POINTS)])
        answer = f'<points coords="{listed}{end}">it</point>'
        for form in (answer, TOKENIZER(answer, return_tensors="pt")["input_ids"][0]):
            read = PROCESSOR.read_answer(form, known)
            assert (len(read.points), read.invalid, read.labels) == (len(group), 0, ("it",))
            assert read.points.group.tolist() == group.tolist()
            assert np.allclose(read.points.xy, triples_to_points(triples, known)[1])
            assert np.abs(read.points.xy - xy).max() < 10
            assert PROCESSOR.decode_points(form, known) == read.points


@settings(max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=5))
def test_any_mixture(shape: list[tuple[int, bool]]) -> None:
    """Random batches: every row has the image tokens and metadata of its own pictures."""
    texts, images, videos = [], [], []
    for count, clip in shape:
        texts.append("<|video|>" if clip else "<|image|>" * count)
        images.append([] if clip else [picture(20 + 9 * i, 40) for i in range(count)])
        videos.append([CLIP] if clip else [])
    out = run([t + "x" for t in texts], images, videos)
    for (count, clip), known in zip(shape, out["pointing_metadata"], strict=True):
        assert known.is_video == clip
        assert len(known.patch_maps) == (5 if clip else count)
        assert known.pooling.max(initial=-1) + 1 <= 25 * (5 if clip else 5 * count)


def test_outputs_and_their_options() -> None:
    plain = PROCESSOR(text=["a", "bcd"])
    assert set(plain) == {"input_ids", "attention_mask", "mm_token_type_ids"}
    assert [len(row) for row in plain["input_ids"]] == [4, 4], "padded unless told otherwise"
    assert [len(row) for row in PROCESSOR(text=["a", "bcd"], padding=False)["input_ids"]] == [2, 4]
    assert isinstance(
        PROCESSOR(text="<|image|>", images=ONE, return_tensors="np")["pixel_values"], np.ndarray
    )
    assert "video_metadata" in PROCESSOR(text="<|video|>", videos=CLIP, return_metadata=True)
    assert "pointing_metadata" not in PROCESSOR(text="<|image|>", images=ONE, return_tensors="pt")
    assert "mm_token_type_ids" not in PROCESSOR(text="x", return_mm_token_type_ids=False)


def test_max_crops_of_one_call() -> None:
    assert run("<|image|>", ONE, max_crops=1)["image_num_crops"].tolist() == [2]
    assert run("<|image|>", ONE)["image_num_crops"].tolist() == [5]


def test_location_grid() -> None:
    assert [toy_processor(patch_location=grid).location_grid for grid in ("3x3", "5x5", None)] == [3, 5, 0]
    assert run("<|image|>", ONE)["pointing_metadata"][0].num_locations == 9


# --- clips


def test_forms_of_one_clip(tmp_path: Path) -> None:
    for i, frame in enumerate(CLIP.frames):
        picture_of = __import__("PIL.Image", fromlist=["Image"]).fromarray(frame)
        picture_of.save(tmp_path / f"frame_{i + 7}.png")  # frame_10 and frame_11 sort after frame_9
    array = CLIP.frames
    expected = run("<|video|>", videos=Clip(array, np.arange(5) / 2))
    known = {"fps": 2.0}
    forms = [
        array,
        list(array),
        torch.tensor(array),
        torch.tensor(array).permute(0, 3, 1, 2),
        array / 255.0,
        str(tmp_path),
        tmp_path,
    ]
    for videos in forms:
        out = run("<|video|>", videos=videos, video_metadata=known)
        assert torch.equal(out["input_ids"], expected["input_ids"])
        assert torch.equal(out["pixel_values_videos"], expected["pixel_values_videos"])


def test_frames_are_chosen_or_taken_as_they_are() -> None:
    metadata = VideoMetadata(total_num_frames=100, fps=10.0, frames_indices=[0, 4, 9, 20, 99])
    taken = run("<|video|>", videos=[CLIP.frames], video_metadata=[metadata], do_sample_frames=False)
    assert taken["pointing_metadata"][0].timestamps.tolist() == [0.0, 0.4, 0.9, 2.0, 9.9]
    chosen = run("<|video|>", videos=[frames(40, 8, 8)], video_metadata=[{"fps": 10}])
    assert chosen["pointing_metadata"][0].timestamps.tolist() == [0.0, 0.5, 1.1, 1.6, 2.2, 2.7, 3.3, 3.9]
    assert chosen["video_grids"].tolist() == [[8, 2, 2]]
    fewer = run("<|video|>", videos=[frames(40, 8, 8)], video_metadata=[{"fps": 10}], num_frames=3)
    assert fewer["pointing_metadata"][0].timestamps.tolist() == [0.0, 1.9, 3.9]


def test_size_of_a_clip_is_the_callers_if_known() -> None:
    out = run("<|video|>", videos=[CLIP], video_metadata=[{"width": 1920, "height": 1080}])
    assert out["pointing_metadata"][0].image_sizes == ((1920, 1080),)


def test_long_clips_are_cut_like_short_ones() -> None:
    """More frames than are read at once."""
    many = frames(37, 30, 40)
    out = PROCESSOR.video_processor(Clip(many, np.arange(37)), return_tensors="pt")
    alone = [
        PROCESSOR.video_processor(Clip(many[i : i + 1], [0.0]), return_tensors="pt")["pixel_values_videos"]
        for i in range(37)
    ]
    assert torch.equal(out["pixel_values_videos"], torch.cat(alone))
    assert out["video_token_pooling"].max() == 37 * 25 - 1


def test_a_video_file(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in frames(25, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    out = run("<|video|>", videos=tmp_path / "film.mp4")
    assert out["pointing_metadata"][0].timestamps.tolist() == [0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert out["pointing_metadata"][0].image_sizes == ((64, 48),)
    with pytest.raises(ProcessingError, match=r"do_sample_frames=True to read .*film\.mp4"):
        run("<|video|>", videos=tmp_path / "film.mp4", do_sample_frames=False)


# --- files


def test_round_trip(tmp_path: Path) -> None:
    processor = toy_processor(patch_location="5x5", use_low_res_token_for_global_crops=False)
    processor.save_pretrained(tmp_path)
    again = MolmoPointProcessor.from_pretrained(tmp_path)
    assert type(again.image_processor) is MolmoPointImageProcessor
    assert type(again.video_processor) is MolmoPointVideoProcessor
    assert again.to_dict() == processor.to_dict()
    assert (again.location_grid, again.use_low_res_token_for_global_crops, again.chat_template) == (
        5,
        False,
        TEMPLATE,
    )
    ours, theirs = (
        p(text=PROMPTS, images=[ONE, TWO, THREE], videos=[CLIP], return_tensors="pt")
        for p in (processor, again)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_released_files_load_as_they_are(tmp_path: Path) -> None:
    """Released folders name native classes and have one file per part; the location grid is in config.json."""
    toy_tokenizer().save_pretrained(tmp_path)
    released: dict[str, dict[str, Any]] = {
        "processor_config.json": {"processor_class": "Molmo2Processor", "use_low_res_token_for_global_crops": True},
        "preprocessor_config.json": {"image_processor_type": "Molmo2ImageProcessor", "max_crops": 3, "size": {"height": 70, "width": 70}},
        "video_preprocessor_config.json": {
            "video_processor_type": "Molmo2VideoProcessor", "frame_sample_mode": "fps", "sampling_fps": 1, "num_frames": 7, "max_fps": 2,
            "do_normalize": None, "size": {"height": 70, "width": 70},
        },
        "config.json": {"model_type": "molmo_point", "patch_location": "2x2"},
    }  # fmt: skip
    for name, content in released.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    processor = MolmoPointProcessor.from_pretrained(str(tmp_path))
    assert type(processor) is MolmoPointProcessor
    assert (processor.location_grid, processor.image_processor.max_crops, processor.chat_template) == (
        2,
        3,
        TEMPLATE,
    )
    video = processor.video_processor
    assert (video.frame_sample_mode, video.sampling_fps, video.num_frames, video.do_normalize) == (
        "fps",
        1,
        7,
        True,
    )
    out = processor(
        text="<|video|>",
        videos=[frames(40, 8, 8)],
        video_metadata=[{"fps": 10}],
        return_pointing_metadata=True,
    )
    assert np.allclose(out["pointing_metadata"][0].timestamps, [0, 1, 2, 3]), (
        "2 a second would end before the video"
    )


# --- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "<|image|>"}, r"expected 1 images for 1 placeholders <\|image\|> in 1 prompts, got 0"),
        ({"text": "x", "images": ONE}, "expected 0 images for 0 placeholders .* got 1"),
        ({"text": "<|image|><|image|>", "images": [ONE]}, "expected 2 images for 2 placeholders"),
        (
            {"text": ["<|image|>", "x"], "images": [[], [ONE]]},
            "expected 1 images for 1 placeholders .* in sample 0, got 0",
        ),
        (
            {"text": ["<|image|>", "x"], "images": [[ONE], [TWO]]},
            "in sample 1, got 1: .*; pass the images in the order of the prompt",
        ),
        (
            {"text": ["<|image|>"] * 3, "images": [[ONE, TWO], [THREE]]},
            "one list of images per sample for 3 samples, got 2 lists",
        ),
        (
            {"text": "<|image|>", "images": np.zeros((2, 8, 8, 3), np.uint8)},
            "expected single pictures, got an array of shape",
        ),
        ({"text": "<|image|>", "images": ["missing.png"]}, "found nothing there"),
        ({"text": "<|video|>"}, r"expected 1 videos for 1 placeholders <\|video\|>"),
        (
            {"text": "<|video|><|video|>", "videos": [CLIP, CLIP]},
            "at most one video in a sample, got 2 in sample 0",
        ),
        (
            {"text": "<|image|><|video|>", "images": ONE, "videos": CLIP, "return_pointing_metadata": True},
            "pictures or a video in a sample, got 1 pictures and a video",
        ),
        ({"text": "<|video|>", "videos": [frames(3)]}, "expected to know when the frames were taken"),
        (
            {"text": "<|video|>", "videos": Clip(frames(3), [0.0, 1.0])},
            "one ascending time in seconds, from 0, for each of 3 frames",
        ),
        ({"text": "<|video|>", "videos": Clip(frames(2), [1.0, 0.0])}, "one ascending time"),
        (
            {"text": "<|video|>", "videos": Clip(frames(2), [-1.0, 0.0])},
            "one ascending time in seconds, from 0",
        ),
        ({"text": "<|video|>", "videos": Clip(frames(2), ["a", "b"])}, "the time of each frame in seconds"),
        ({"text": "<|video|>", "videos": Clip(iter(frames(2)), [0.0, 1.0])}, "expected a clip"),
        ({"text": "<|video|>", "videos": Clip([], [])}, "at least one frame in a clip, got none"),
        (
            {"text": "<|video|>", "videos": Clip([picture(8, 8), picture(9, 8)], [0, 1])},
            r"frames of one size, got .* \[\(8, 8\), \(8, 9\)\]",
        ),
        ({"text": "<|video|>", "videos": "missing.mp4"}, "expected a video file at 'missing.mp4'"),
        ({"text": "<|video|>", "videos": 5}, "expected a clip .*, got int"),
        (
            {"text": "<|video|>", "videos": [CLIP], "video_metadata": [{}, {}]},
            "video_metadata for 1 clips, got 2",
        ),
        (
            {"text": "<|video|>", "videos": [CLIP], "video_metadata": [3]},
            "settings of the types .*video_metadata",
        ),
        ({"text": "x", "max_crops": "many"}, "settings of the types .*max_crops"),
        ({"text": None, "images": ONE}, "expected text with placeholders, got none"),
        ({"text": []}, "a list of at least one string"),
        ({"text": [["words"]]}, r"got a list of \['list'\]"),
        ({"text": 3}, "got int"),
        ({"text": "<im_patch>"}, "expected 0 image tokens in sample 0, got 1"),
        (
            {"text": "<|image|>words", "images": ONE, "truncation": True, "max_length": 9},
            "expected 25 image tokens in sample 0, got .*max_length",
        ),
        ({"text": "x", "earlier_points": [[], []]}, "earlier_points for each of 1 samples, got 2"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        PROCESSOR(**{"return_tensors": "pt", **arguments})


def test_more_places_than_the_tokenizer_has_names() -> None:
    with pytest.raises(ProcessingError, match=f"at most {POINT_NAMES} places.*lower max_crops"):
        run("<|image|>" * 12, [picture(400, 400)] * 12, max_crops=16)


def test_a_tokenizer_without_the_special_tokens() -> None:
    bare = toy_tokenizer()
    bare.backend_tokenizer.no_truncation()
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    description = json.loads(bare.backend_tokenizer.to_str())
    description["added_tokens"] = [
        t for t in description["added_tokens"] if t["content"] not in ("<im_low>", "<frame_end>")
    ]
    poor = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(description)), eos_token="<|im_end|>"
    )
    with pytest.raises(ProcessingError, match="without <frame_end>, <im_low>"):
        MolmoPointProcessor(PROCESSOR.image_processor, PROCESSOR.video_processor, poor)
