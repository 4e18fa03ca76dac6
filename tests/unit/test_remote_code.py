"""No code of a repository runs, although the user answers yes to everything; and released files keep loading."""

from __future__ import annotations

import ast
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import plain_tokenizer, tiny_llm, tiny_vit
from tiny_sam2 import tiny_sam2, tiny_sam2_processor

import molmopoint
from molmopoint import checkpoints
from molmopoint.checkpoints import assemble
from molmopoint.checkpoints.llm_text import load_llm
from molmopoint.config import MolmoPointConfig
from molmopoint.errors import CheckpointError, MolmoPointError, ProcessingError
from molmopoint.modeling import MolmoPointForConditionalGeneration
from molmopoint.processing import MolmoPointImageProcessor, MolmoPointProcessor, MolmoPointVideoProcessor
from molmopoint.remote_code import check_kernels
from molmopoint.training.recipe_files import load_recipe
from molmopoint.training.start import load_start

ROOT = Path(molmopoint.__file__).resolve().parent.parent


def edit(file: Path, **changes: Any) -> None:
    fields = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**fields, **changes}))


class Trap:
    """Code that leaves a mark when it runs, and files that name it."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "ran.txt"
        self.code = f"open({str(self.mark)!r}, 'w').close()\nclass Own:\n    pass\ndef generate(*args, **kwargs):\n    pass\n"

    def set_in(self, model: Path) -> Path:
        (model / "own.py").write_text(self.code)
        return model

    def tokenizer(self, model: Path) -> None:
        edit(
            model / "tokenizer_config.json",
            auto_map={"AutoTokenizer": ["own.Own", "own.Own"]},
            tokenizer_class="OwnTokenizer",
        )

    def older_tokenizer(self, model: Path) -> None:
        edit(model / "tokenizer_config.json", auto_map=["own.Own", "own.Own"], tokenizer_class="OwnTokenizer")

    def config(self, model: Path) -> None:
        names = (
            "AutoConfig",
            "AutoModel",
            "AutoModelForCausalLM",
            "AutoModelForImageTextToText",
            "AutoTokenizer",
            "AutoProcessor",
        )
        edit(model / "config.json", auto_map=dict.fromkeys(names, "own.Own"))

    def unknown_type(self, model: Path) -> None:
        self.config(model)
        edit(model / "config.json", model_type="own")

    def processors(self, model: Path) -> None:
        edit(
            model / "processor_config.json",
            auto_map={"AutoProcessor": "own.Own"},
            processor_class="OwnProcessor",
        )
        edit(
            model / "preprocessor_config.json",
            auto_map={"AutoImageProcessor": "own.Own"},
            image_processor_type="OwnImages",
        )
        edit(
            model / "video_preprocessor_config.json",
            auto_map={"AutoVideoProcessor": "own.Own"},
            video_processor_type="OwnVideos",
        )

    def generation(self, model: Path) -> None:
        (model / "custom_generate").mkdir()
        (model / "custom_generate" / "generate.py").write_text(self.code)
        edit(model / "generation_config.json", custom_generate=str(model))

    def kernel(self, model: Path) -> None:
        edit(model / "config.json", attn_implementation="somebody/attention")


@pytest.fixture
def trap(tmp_path, monkeypatch, capfd):
    """A trap; afterwards nothing was asked, and nothing ran."""
    made = Trap(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 50))
    yield made
    assert not made.mark.exists(), "code of the repository ran"
    told = capfd.readouterr()
    assert "[y/N]" not in told.out + told.err, "the user was asked"


def copy_of(source: str | Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "model"))


REFUSED, READ = "refused", "read"
WAYS = {
    "tokenizer": REFUSED, "older_tokenizer": REFUSED, "config": READ, "unknown_type": REFUSED, "processors": READ, "generation": READ,
    "kernel": REFUSED,
}  # fmt: skip
KNOWN_TOKENIZERS = ("molmo2_folder",)
"""transformers knows tokenizers of this model type, and takes one of them in place of the code."""


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["toy_folder", "molmo2_folder"])
@pytest.mark.filterwarnings("ignore")
def test_models(trap, tmp_path, request, family, way):
    """Pointing models of both families, and the same as a start for training."""
    model = trap.set_in(copy_of(request.getfixturevalue(family), tmp_path))
    getattr(trap, way)(model)
    readers = [
        lambda: molmopoint.load(model, device_map="cpu"),
        lambda: load_start(model, load_recipe("lora")),
    ]
    for read in readers:
        if WAYS[way] == READ or (family in KNOWN_TOKENIZERS and "tokenizer" in way):
            read()
            continue
        with pytest.raises(CheckpointError, match=r"never run|expected a checkpoint with") as caught:
            read()
        assert "trust_remote_code=True" not in str(caught.value), "no advice to run it"


@pytest.mark.parametrize("way", ["tokenizer", "config", "processors", "generation"])
def test_classes_of_the_library(trap, tmp_path, toy_folder, way):
    model = trap.set_in(copy_of(toy_folder, tmp_path))
    getattr(trap, way)(model)
    MolmoPointConfig.from_pretrained(model, trust_remote_code=True)
    MolmoPointForConditionalGeneration.from_pretrained(model, trust_remote_code=True)
    for part in (MolmoPointImageProcessor, MolmoPointVideoProcessor):
        part.from_pretrained(model, trust_remote_code=True)
    if way == "tokenizer":
        with pytest.raises(CheckpointError, match="auto_map"):
            MolmoPointProcessor.from_pretrained(model, trust_remote_code=True)
    else:
        MolmoPointProcessor.from_pretrained(model, trust_remote_code=True)


@pytest.mark.parametrize("way", ["tokenizer", "kernel"])
def test_judges(trap, tmp_path, way):
    """A reward model whose base, beside it, needs code."""
    base = trap.set_in(copy_of(checkpoints.resolve("nano"), tmp_path))
    getattr(trap, way)(base)
    judge = Path(shutil.copytree(checkpoints.resolve("nano-reward"), tmp_path / "judge"))
    edit(judge / "reward_config.json", base=str(base))
    with pytest.raises(CheckpointError, match="never run"):
        molmopoint.load_reward(judge)


@pytest.mark.parametrize("way", ["config", "processors", "unknown_type", "kernel"])
def test_segmenters(trap, tmp_path, way):
    model = tmp_path / "model"
    tiny_sam2().save_pretrained(model)
    tiny_sam2_processor().save_pretrained(model)
    getattr(trap, way)(trap.set_in(model))
    if way in ("config", "processors"):
        molmopoint.load_segmenter(model)
        return
    with pytest.raises(CheckpointError) as caught:
        molmopoint.load_segmenter(model)
    assert "trust_remote_code=True" not in str(caught.value)
    with pytest.raises(CheckpointError, match="leave it out"):
        molmopoint.load_segmenter(model, trust_remote_code=True)


@pytest.mark.parametrize("way", ["tokenizer", "config", "unknown_type", "kernel"])
def test_parts(trap, tmp_path, way):
    model = tmp_path / "model"
    tiny_llm().save_pretrained(model)
    plain_tokenizer().save_pretrained(model)
    getattr(trap, way)(trap.set_in(model))
    if way == "unknown_type":
        trap.tokenizer(model)
        with pytest.raises(CheckpointError, match="auto_map"):
            assemble(tiny_vit(), str(model), vision_layers=(-1, -3), patch_embed_dim=16)
    if way in ("config", "tokenizer"):
        load_llm(model, torch.float32)
        return
    with pytest.raises(CheckpointError, match="never run"):
        load_llm(model, torch.float32)


def test_who_asks_for_it_is_refused(toy_folder):
    for read in (molmopoint.load, molmopoint.load_reward):
        with pytest.raises(CheckpointError, match="released models need none; leave it out"):
            read("nano" if read is molmopoint.load else "nano-reward", trust_remote_code=True)
    molmopoint.load(toy_folder, device_map="cpu", trust_remote_code=False)


@pytest.mark.parametrize(
    "fields",
    [
        {"_attn_implementation": "somebody/attention"},
        {"text_config": {"attn_implementation": "somebody/attention@v1:run"}},
        {"attn_implementation": {"text_config": "somebody/attention"}},
        {"experts_implementation": "somebody/experts"},
    ],
)
def test_kernels_of_other_repositories(fields):
    with pytest.raises(CheckpointError, match=r"somebody/.*another repository"):
        check_kernels(fields, "here")
    check_kernels({"attn_implementation": "sdpa", "text_config": {"name": "a/b"}}, "here")


def test_nothing_is_unpickled(tmp_path, toy_folder):
    """A pickle beside a config is never opened, even where it is asked for."""
    model = copy_of(toy_folder, tmp_path)
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="never unpickled"):
        molmopoint.load(model, device_map="cpu", use_safetensors=False)
    sam2 = tmp_path / "sam2"
    tiny_sam2().save_pretrained(sam2)
    tiny_sam2_processor().save_pretrained(sam2)
    (sam2 / "model.safetensors").rename(sam2 / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="SAM 2"):
        molmopoint.load_segmenter(sam2, use_safetensors=False)


@pytest.mark.parametrize("where", ["", "part"])
@pytest.mark.parametrize(
    "shard",
    [
        "../outside.safetensors",
        "/etc/outside.safetensors",
        "..\\outside.safetensors",
        "a/b.safetensors",
        "x.bin",
        "",
    ],
)
def test_shards_stay_in_their_folder(tmp_path, toy_folder, shard, where):
    model = tmp_path / "model" / where
    shutil.copytree(toy_folder, model, dirs_exist_ok=True)
    tensors = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    save_file(tensors, tmp_path / "outside.safetensors", metadata={"format": "pt"})
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, shard)})
    )
    with pytest.raises(CheckpointError, match="only such files are read"):
        MolmoPointForConditionalGeneration.from_pretrained(
            tmp_path / "model", **({"subfolder": where} if where else {})
        )


def test_shards_of_a_repository_stay_in_it(tmp_path, toy_folder):
    """The cache of the hub is on this machine, and a name could lead out of it."""
    snapshot = tmp_path / "models--some--model" / "snapshots" / ("0" * 40)
    shutil.copytree(toy_folder, snapshot)
    (tmp_path / "models--some--model" / "refs").mkdir()
    (tmp_path / "models--some--model" / "refs" / "main").write_text("0" * 40)
    tensors = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").rename(tmp_path / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "../../../outside.safetensors")}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="only such files are read"):
        MolmoPointForConditionalGeneration.from_pretrained(
            "some/model", cache_dir=tmp_path, local_files_only=True
        )


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0] / 2 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ 1 +",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
    ],
)
def test_chat_templates_run_in_a_sandbox(toy_folder, tmp_path, template):
    model = copy_of(toy_folder, tmp_path)
    (model / "chat_template.jinja").write_text(template)
    with pytest.raises(ProcessingError, match="chat template"):
        MolmoPointProcessor.from_pretrained(model).apply_chat_template([{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    "settings",
    [
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "X"}}},
        3,
    ],
)
def test_quantisation_named_by_a_file(toy_folder, tmp_path, settings):
    """Its package may be missing, or the settings wrong: told in an error of the library."""
    model = copy_of(toy_folder, tmp_path)
    edit(model / "config.json", quantization_config=settings)
    with pytest.raises(MolmoPointError):
        molmopoint.load(model, device_map="cpu")


# --- the source


OWN = {
    "MolmoPointConfig",
    "MolmoPointForConditionalGeneration",
    "MolmoPointProcessor",
    "Molmo2PointingProcessor",
    "RewardModel",
    "GraftForConditionalGeneration",
    "SeeingPolicy",  # of an example, and those of the library below
    "SeeingProcessor",
}
"""Classes that answer no by themselves."""
NO_CODE = {"MolmoPointImageProcessor", "MolmoPointVideoProcessor", "LoraConfig", "GenerationConfig"}
"""The image and video processor of the library; and PEFT's adapters and settings of `generate`, which can name no code."""

OF_EXAMPLES = {"PreTrainedTokenizerFast", "SwatchConfig", "SwatchModel"}
"""Named classes, not automatic ones, that read folders which the example itself wrote."""


def calls() -> list[tuple[str, ast.Call, str]]:
    found = []
    for folder in ("molmopoint", "heads", "eval", "checkpoints", "examples"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if file.is_relative_to(ROOT / "molmopoint") and file.resolve() != file:
                continue  # the links to the other rooms
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr == "from_pretrained"
                ):
                    found.append(
                        (
                            f"{file.relative_to(ROOT)}:{node.lineno}",
                            node,
                            ast.unparse(node.func.value).rpartition(".")[2],
                        )
                    )
    return found


def test_every_call_answers_no():
    """`trust_remote_code=False`, or a class of the library, or `super()` of one; segmenters pass it among
    their settings.
    """
    known = calls()
    assert len(known) > 15
    for where, call, name in known:
        says_no = any(
            word.arg == "trust_remote_code" and ast.unparse(word.value) == "False" for word in call.keywords
        )
        passes_on = any(
            word.arg is None and ast.unparse(word.value) in ("safely", "placed") for word in call.keywords
        )
        allowed = (
            name in OWN | NO_CODE
            or name.startswith("super(")
            or (where.startswith("examples") and name in OF_EXAMPLES)
        )
        assert says_no or passes_on or allowed, (
            f"{where}: {ast.unparse(call)[:80]} may run code of a repository"
        )
