"""Grounding tokens against coordinates as text on one tiny host: `python examples/graft_twin.py --folder runs/twin`.

A host built like Qwen2.5-VL or Qwen3-VL is made from nothing, and a graft of it. The same network then learns
twice, by `molmopoint.finetune`, to point at all objects of a colour in the scenes of the embedded model: once
with grounding tokens, once with coordinates written as text, one token per digit. Start, pictures, questions,
order and number of steps are the same; the answers differ. Scores are means over new scenes: a point is right
within 5 % of the picture's longer side of an object that no other point has taken.

Runs that are complete are skipped, and one that was stopped goes on: call it again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

import molmopoint
from molmopoint.checkpoints import graft
from molmopoint.data.synthetic import sample_scene
from molmopoint.metrics import match_nearby
from molmopoint.processing.text_points import read_text_answer, text_answer
from molmopoint.training.recipe_files import load_recipe

HOSTS = ("qwen2_5_vl", "qwen3_vl")
FORMS = ("grounding", "text")
TOLERANCE = 0.05
ROWS = 512
"""Rows of the vocabulary tables; the tokenizer leaves some of them to spare."""

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Plan:
    """Sizes of the experiment.

    Attributes:
        host: kind of the host.
        width: of its text model.
        train_scenes: pictures to learn from.
        test_scenes: new pictures.
        steps: optimiser steps of every run.
        rate: largest learning rate, of both forms.
    """

    host: str
    width: int
    train_scenes: int
    test_scenes: int
    steps: int
    rate: float


def questions(seed: int, count: int) -> list[dict[str, Any]]:
    """A question for every colour of every scene: its picture, label, and the places of its objects."""
    asked = []
    for number in range(count):
        scene = sample_scene(np.random.default_rng([seed, number]))
        for colour in sorted({thing.colour for thing in scene.objects}):
            places = [(thing.x, thing.y) for thing in scene.objects if thing.colour == colour]
            asked.append({"number": number, "image": scene.image, "label": f"{colour} objects", "xy": places})
    return asked


def prompt_of(question: dict[str, Any]) -> str:
    """What is asked, whatever the form of the answer."""
    return f"Point to the {question['label']}."


def written(question: dict[str, Any]) -> str:
    """The answer with coordinates as text."""
    xy = np.array(question["xy"])
    return text_answer(np.zeros(len(xy), dtype=np.int64), xy, [question["image"].size], question["label"])


def write_data(folder: Path, plan: Plan) -> None:
    """Pictures, and one file of rows for each form."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, list[dict[str, Any]]] = {form: [] for form in FORMS}
    for question in questions(71, plan.train_scenes):
        name = f"{question['number']:04}.png"
        question["image"].save(folder / name)
        shared = {"image": name, "prompt": prompt_of(question)}
        points = [{"x": x, "y": y} for x, y in question["xy"]]
        label = {"label": question["label"], "points": points, "coords": "pixel", "style": "pointing"}
        rows["grounding"].append({**shared, **label})
        rows["text"].append({**shared, "answer": written(question)})
    for form, lines in rows.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{form}.jsonl").write_text(text, encoding="utf-8")


def build_tokenizer() -> Any:
    """Short byte pairs of what is said here; every digit is a token of its own."""
    said = []
    for question in questions(70, 60):
        said += [prompt_of(question), written(question), "user\n", "assistant\n"]
    backend = Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(said, trainer)
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )


def build_host(plan: Plan, seed: int) -> tuple[Any, Any]:
    """Model and processor of a host that knows nothing."""
    tokenizer = build_tokenizer()
    names = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
    ids = dict(zip(names, tokenizer.convert_tokens_to_ids(list(SPECIAL[3:])), strict=True))
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e4}
    text = {
        "vocab_size": ROWS, "hidden_size": plan.width, "intermediate_size": 3 * plan.width, "num_hidden_layers": 4,
        "num_attention_heads": plan.width // 32, "num_key_value_heads": plan.width // 32, "max_position_embeddings": 4096,
        "rope_parameters": rope, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    vision = {
        "depth": 4, "hidden_size": 96, "intermediate_size": 192, "num_heads": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "out_hidden_size": plan.width,
    }  # fmt: skip
    patch = 14 if plan.host == "qwen2_5_vl" else 16
    size = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (14 * patch) ** 2}
    image = Qwen2VLImageProcessor(patch_size=patch, size=size)
    if plan.host == "qwen2_5_vl":
        seen = {**vision, "patch_size": patch, "window_size": 4 * patch, "fullatt_block_indexes": [1, 3]}
        config: Any = Qwen2_5_VLConfig(text_config=text, vision_config=seen, tie_word_embeddings=False, **ids)
        processor: Any = Qwen2_5_VLProcessor(
            image, tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE
        )
    else:
        rope["mrope_interleaved"] = True
        seen = {
            **vision,
            "patch_size": patch,
            "num_position_embeddings": 256,
            "deepstack_visual_indexes": [0, 1],
        }
        config = Qwen3VLConfig(
            text_config={**text, "head_dim": 32}, vision_config=seen, tie_word_embeddings=False, **ids
        )
        processor = Qwen3VLProcessor(image, tokenizer, Qwen3VLVideoProcessor(), chat_template=TEMPLATE)
    config.dtype = torch.float32
    torch.manual_seed(seed)
    return AutoModelForImageTextToText.from_config(config), processor


def learn(folder: Path, plan: Plan, form: str, seed: int) -> Path:
    """Trains one form from one start; returns the folder of the model."""
    start = folder / f"start-{plan.host}-{seed}"
    if not (start / "config.json").exists():
        host, processor = build_host(plan, seed)
        graft(host, processor=processor, patch_embed_dim=128, point_tokens=400, seed=seed, out=start)
    groups = [f"groups.{group}.peak={plan.rate}" for group in ("vit", "connector", "llm", "point")]
    recipe = load_recipe(
        "full",
        [
            f"steps={plan.steps}", "epochs=false", f"seed={seed}", f"data.seed={seed}", "gradient_checkpointing=false", "data.rows=1",
            "data.max_tokens=1536", "data.pool=24", "data.workers=0", "data.held_out=0", "scoring.every=0", "saving.every=50",
            "saving.keep=1", "logging.every=25", "logging.to=[]", "z_loss=0.0", *groups,
        ],
    )  # fmt: skip
    out = folder / f"{plan.host}-{form}-{seed}"
    molmopoint.finetune(folder / "data" / f"{form}.jsonl", start, out, recipe, log=print)
    return out / "model"


def score(model: Path, form: str, plan: Plan) -> dict[str, float]:
    """Means over the questions of new scenes."""
    pointer = molmopoint.load(model)
    asked = questions(72, plan.test_scenes)
    options = {"max_new_tokens": 120, "template": "{}", "batch_size": 16}
    prompts = [prompt_of(question) for question in asked]
    answers = pointer.point_batch([question["image"] for question in asked], prompts, **options)
    f1, recall, exact = [], [], []
    for question, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Exception):
            raise answer
        found = answer.points
        if form == "text":
            found = read_text_answer(answer.raw_text, answer.image_sizes).points
        wanted = np.array(question["xy"])
        radius = np.full(len(wanted), TOLERANCE * max(answer.image_sizes[0]))
        match = match_nearby(found.xy, wanted, radius)
        f1.append(match.f1)
        recall.append(match.recall)
        exact.append(match.exact_count)
    return {"f1": float(np.mean(f1)), "recall": float(np.mean(recall)), "right_count": float(np.mean(exact))}


def main() -> None:
    """Makes the runs of a plan, and tells all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--host", choices=HOSTS, default="qwen2_5_vl")
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=FORMS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--width", type=int, default=128, help="of the text model, a multiple of 32")
    parser.add_argument("--train-scenes", type=int, default=600)
    parser.add_argument("--test-scenes", type=int, default=60)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--rate", type=float, default=2e-3)
    given = parser.parse_args()
    plan = Plan(given.host, given.width, given.train_scenes, given.test_scenes, given.steps, given.rate)

    said = given.folder / "plan.json"
    if said.exists() and json.loads(said.read_text()) != asdict(plan):
        parser.error(f"expected the plan of {said}, got another one; choose another --folder")
    if not (given.folder / "data" / "text.jsonl").exists():
        write_data(given.folder / "data", plan)
    said.write_text(json.dumps(asdict(plan), indent=1))
    for seed in given.seeds:
        for form in given.forms:
            file = given.folder / f"{plan.host}-{form}-{seed}.json"
            if not file.exists():
                model = learn(given.folder, plan, form, seed)
                file.write_text(json.dumps({"form": form, "seed": seed, **score(model, form, plan)}))
            print(file.read_text(), flush=True)


if __name__ == "__main__":
    main()
