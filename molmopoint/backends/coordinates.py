"""Families that write coordinates in forms of their own, as they are: Qwen2.5-VL and Qwen3-VL, Florence-2, PaliGemma.

The networks and processors are those of transformers. Each family has a row here: how it is asked to point, and the
form in which its answers name places. Points have no scores. So that benchmarks compare models on equal terms, each is
asked in its own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from molmopoint.backends.hosts import HostBackend, HostRequests
from molmopoint.backends.markup import IncrementalDetokenizer
from molmopoint.backends.options import AnswerOptions, fill_template, is_request
from molmopoint.backends.requests import Request
from molmopoint.decoding import Answer
from molmopoint.errors import CheckpointError, ProcessingError
from molmopoint.geometry import PointingMetadata
from molmopoint.load_checks import check_loading_info, refuse_torchao, verify_source
from molmopoint.points import Point, Points
from molmopoint.processing.coordinate_forms import FORMS, CoordinateForm
from molmopoint.processing.media import MediaInputs
from molmopoint.processing.rows import collate

_JSON = 'Answer with JSON alone: [{"point_2d": [x, y], "label": "..."}, ...]'
_AS_JSON = f"Point to every {{}}. {_JSON}"
_ASKED_AS_JSON = f"{{}} {_JSON}"


@dataclass(frozen=True)
class Dialect:
    """How a family is asked, and how it answers.

    Attributes:
        title: the family's name for people.
        form: of the places in its answers.
        pointing: form of a request to point at something.
        asking: form of a request that is a sentence of its own; None where it is the same.
        types_name: what its network calls the tensor that tells image tokens from others; None where it takes none.
        reads_first: it is an encoder and a decoder: answers do not go on behind the prompt.
    """

    title: str
    form: CoordinateForm
    pointing: str
    types_name: str | None = None
    reads_first: bool = False
    asking: str | None = None


_QWEN3 = Dialect("Qwen3-VL", FORMS["qwen3-vl"], _AS_JSON, "mm_token_type_ids", asking=_ASKED_AS_JSON)

DIALECTS = {
    "qwen2_5_vl": Dialect(
        "Qwen2.5-VL", FORMS["qwen2.5-vl"], _AS_JSON, "mm_token_type_ids", asking=_ASKED_AS_JSON
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": _QWEN3,
    "florence2": Dialect("Florence-2", FORMS["florence-2"], "Locate {} in the image.", reads_first=True),
    "paligemma": Dialect("PaliGemma", FORMS["paligemma"], "detect {}", "token_type_ids"),
}
"""Dialects by model type."""


class CoordinateRequests(HostRequests):
    """Makes rows as the family's processor does."""

    title = "model that writes coordinates"

    def see(self, picture: Image.Image) -> tuple[dict[str, Tensor], tuple[int, int]]:
        """What the image processor makes of the picture; without a grid it is one image token to us."""
        processor = self._processor.image_processor
        seen = processor([picture], return_tensors="pt")
        pixels = {name: value for name, value in seen.items() if isinstance(value, Tensor)}
        if "image_grid_thw" not in pixels:
            return pixels, (1, 1)
        _, rows, cols = pixels["image_grid_thw"][0].tolist()
        return pixels, (rows // processor.merge_size, cols // processor.merge_size)

    def write(self, prompt: str) -> str:
        """A turn of the chat template, or the plain prompt of families without one."""
        tokenizer = self._processor.tokenizer
        template = self._processor.chat_template or getattr(tokenizer, "chat_template", None)
        if template is None:
            image = tokenizer.convert_ids_to_tokens(self.image_token_id)
            end = tokenizer.eos_token if self._ends_with_eos else "\n"
            return f"{image}{tokenizer.bos_token}{prompt}{end}"
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        try:
            return tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
            )
        except TemplateError as error:
            raise ProcessingError(f"expected a chat template that takes a picture, got: {error}") from error

    @property
    def _ends_with_eos(self) -> bool:
        """Whether plain prompts end so: those of encoders do, those of PaliGemma end with a line."""
        return hasattr(self._processor, "num_image_tokens")

    @property
    def image_token_id(self) -> int:
        """See `HostRequests`."""
        stated = getattr(self._processor, "image_token_id", None)
        if stated is not None:
            return stated
        return self._processor.tokenizer.convert_tokens_to_ids(self._processor.image_token)

    def num_image_tokens(self, media: MediaInputs) -> int:
        """See `HostRequests`; families without a grid have always as many."""
        if "image_grid_thw" in media.pixels:
            return media.metadata.num_patches
        processor: Any = self._processor
        return processor.num_image_tokens if self._ends_with_eos else processor.image_seq_length


class CoordinateBackend(HostBackend):
    """See `Backend`.

    Attributes:
        dialect: how the model is asked, and how it answers.
    """

    title = "model that writes coordinates"
    model_type = "qwen2_5_vl"
    builder_class = CoordinateRequests
    scores_points = False
    dialect: Dialect = DIALECTS["qwen2_5_vl"]
    counting_template: ClassVar[str] = "{}"

    def __init__(self, processor: Any, model: Any = None, **settings: Any) -> None:
        if model is not None:
            self.dialect = DIALECTS[model.config.model_type]
            self.title = self.dialect.title  # type: ignore[misc]  # one class for several families
        super().__init__(processor, model, **settings)
        self.requests.title = self.title  # type: ignore[attr-defined, misc]
        if model is not None and self.requests.image_token_id != model.config.image_token_id:  # type: ignore[attr-defined]
            raise CheckpointError(
                f"expected a tokenizer in which the image token is {model.config.image_token_id}, as in the model's "
                f"config, got {self.requests.image_token_id}; load both from the same folder"  # type: ignore[attr-defined]
            )

    @classmethod
    def read_config(cls, source: str, **where: Any) -> Any:
        """See `Backend`."""
        return AutoConfig.from_pretrained(source, trust_remote_code=False, **where)

    @classmethod
    def read_model(cls, source: str, where: dict[str, Any], settings: dict[str, Any]) -> Any:
        """See `Backend`."""
        refuse_torchao(settings.get("quantization_config"))
        verify_source(source, **where)
        settings = {"ignore_mismatched_sizes": True, **settings, "use_safetensors": True}
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            source, trust_remote_code=False, output_loading_info=True, **settings
        )
        model, info = loaded
        check_loading_info({**info, "unexpected_keys": ()}, source)
        return model

    # Requests

    def complete_prompt(self, text: str, template: str | None = None) -> str:
        """What is asked for, in the family's own words unless a template is given."""
        checked = super().complete_prompt(text, "{}" if template is None else template)
        if template is not None:
            return checked
        said = checked.strip()
        asking = self.dialect.asking
        form = asking if asking is not None and is_request(said) else self.dialect.pointing
        return fill_template(form, said)

    def complete_count(self, text: str, template: str | None = None) -> str:
        """The same: things are counted by pointing at them."""
        return self.complete_prompt(text, template)

    # Answers

    def encode(self, media: MediaInputs) -> dict[str, Any]:
        """The pixels on the model's device; networks of transformers look at them with every request."""
        return self.on_device(media.pixels)

    def _collate(self, requests: Sequence[Request], pad_token_id: int) -> dict[str, Tensor]:
        side = "right" if self.dialect.reads_first else "left"
        rows = collate([request.row for request in requests], pad_token_id, side)
        batch = {name: rows[name] for name in ("input_ids", "attention_mask")}
        if self.dialect.types_name == "mm_token_type_ids":
            batch["mm_token_type_ids"] = rows["mm_token_type_ids"]
        elif self.dialect.types_name is not None:
            batch[self.dialect.types_name] = torch.zeros_like(rows["input_ids"])  # all of it is a prompt
        for name in requests[0].media.pixels:
            batch[name] = torch.cat(
                [(request.features or request.media.pixels)[name] for request in requests]
            )
        return batch

    def _length_before(self, batch: Mapping[str, Tensor]) -> int:
        return 1 if self.dialect.reads_first else super()._length_before(batch)

    def _model_inputs(self, batch: dict[str, Any], requests: Sequence[Request]) -> dict[str, Any]:
        floating = {
            name: value.to(self.model.dtype) for name, value in batch.items() if value.is_floating_point()
        }
        return batch | floating

    def _limits(
        self, requests: Sequence[Request], options: AnswerOptions, prompt_length: int
    ) -> dict[str, Any]:
        return {}

    def _most_read(self, options: AnswerOptions) -> int | None:
        return options.point_limit

    def _take_tokens(self) -> None:
        """See `Backend`; how an answer of an encoder and decoder begins is kept as well."""
        stored = self.model.generation_config
        first = {
            name: getattr(stored, name, None) for name in ("decoder_start_token_id", "forced_bos_token_id")
        }
        super()._take_tokens()
        if self.dialect.reads_first:
            text = self.model.config.text_config
            if first["decoder_start_token_id"] is None:
                first["decoder_start_token_id"] = getattr(text, "decoder_start_token_id", None)
            for name, token in first.items():
                setattr(self.model.generation_config, name, token)
            self.ignored_settings = tuple(name for name in self.ignored_settings if name not in first)

    def decode(self, ids: list[int]) -> str:
        """See `Backend`; location tokens stay, some families call them special."""
        tokenizer = self.processor.tokenizer
        around = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        words = [token for token in ids if token not in around]
        return tokenizer.decode(words, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def read_answer(
        self, ids: Tensor, metadata: PointingMetadata, answer_start: str, probabilities: Tensor | None = None
    ) -> Answer:
        """See `Backend`; points have no scores."""
        text = answer_start + self.decode(ids.tolist())
        places, outside = self.dialect.form.points(text, metadata.image_sizes[0], self._seen_size(metadata))
        xy = np.array(places, dtype=np.float64).reshape(-1, 2)  # (n, 2)
        points = Points(
            object_id=np.arange(1, len(xy) + 1),
            group=np.zeros(len(xy), dtype=np.int64),
            x=xy[:, 0],
            y=xy[:, 1],
            image_sizes=metadata.image_sizes,
        )
        return Answer(points, outside, False, (), None)

    def events(self, request: Request, options: AnswerOptions) -> CoordinateEvents:
        """See `Backend`: words as they are written, and all points at the end."""
        return CoordinateEvents(self, request.metadata, options.point_limit)

    def _seen_size(self, metadata: PointingMetadata) -> tuple[int, int]:
        """(width, height) of the picture as the model sees it; as displayed where no form counts its pixels."""
        processor = self.processor.image_processor
        rows, cols = metadata.patch_maps[0].shape
        side = getattr(processor, "patch_size", None)
        if not isinstance(side, int) or not hasattr(processor, "merge_size"):
            return metadata.image_sizes[0]
        return cols * side * processor.merge_size, rows * side * processor.merge_size


class CoordinateEvents:
    """Words of an answer piece by piece, then its points: only the whole answer tells its form.

    Args:
        backend: reads the answer.
        metadata: of the request.
        limit: most points.
    """

    def __init__(self, backend: CoordinateBackend, metadata: PointingMetadata, limit: int | None) -> None:
        self._backend = backend
        self._metadata = metadata
        self._limit = limit
        self._ids: list[int] = []
        self._pieces = IncrementalDetokenizer(backend.decode)

    def push(self, token: int) -> Iterator[str | Point]:
        """The words that are complete with this token."""
        self._ids.append(token)
        if words := self._pieces.push(token):
            yield words

    def finish(self) -> Iterator[str | Point]:
        """What is left of the words, and the points."""
        if words := self._pieces.finish():
            yield words
        answer = self._backend.read_answer(torch.tensor(self._ids, dtype=torch.long), self._metadata, "")
        yield from answer.points[: self._limit]
