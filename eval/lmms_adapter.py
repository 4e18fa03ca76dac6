"""Our models in lmms-eval, so that its list of tasks runs too: `lmms-eval --model molmopoint --model_args
pretrained=nano`.

Its tasks read points from text, and the text of a grounding-token model has none, so points become text here:
shares of the width and height between 0 and 1, in the form that the task reads. Tasks that ask for
coordinates in words ("output exactly one click point as [x, y] ...") get the bare instruction instead,
because our models point rather than write; `prompt=task` sends the words of the task. Installed packages are
found through the entry point group `lmms_eval.models`, whose target is `manifest`.

lmms-eval is imported by the functions that it calls itself; nothing here needs it. Written for its version
0.7.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from molmopoint.backends.result import count_of
from molmopoint.errors import EvaluationError
from molmopoint.pipeline import Pointer, PointingResult

logger = logging.getLogger(__name__)

MODEL_NAME = "molmopoint"
_DEFAULT_MAX_NEW_TOKENS = 256


@dataclass(frozen=True)
class Form:
    """How a task of lmms-eval is asked and answered.

    Attributes:
        write: makes the text of an answer.
        field: of the task's rows with the bare instruction; None where the task's own words are sent.
        single: exactly one point is asked for.
    """

    write: Callable[[PointingResult], str]
    field: str | None = None
    single: bool = False


def shares(result: PointingResult) -> list[tuple[float, float]]:
    """Places of all points as shares of their picture's width and height."""
    sizes = list(result.image_sizes)
    pairs = []
    for point in result.points:
        width, height = sizes[int(point.group)] if len(sizes) > 1 else sizes[0]
        pairs.append((min(max(point.x / width, 0.0), 1.0), min(max(point.y / height, 0.0), 1.0)))
    return pairs


def as_click(result: PointingResult) -> str:
    """The first point as [x, y]; a word without digits if there is none."""
    return next((f"[{_pair(x, y)}]" for x, y in shares(result)), "none")


def as_click_or_refusal(result: PointingResult) -> str:
    """The first point as [x, y]; [-1, -1], which declines, if there is none."""
    return next((f"[{_pair(x, y)}]" for x, y in shares(result)), "[-1, -1]")


def as_tuples(result: PointingResult) -> str:
    """All points as [(x, y), ...]."""
    return "[" + ", ".join(f"({_pair(x, y)})" for x, y in shares(result)) + "]"


def as_json(result: PointingResult) -> str:
    """All points as [{"point_2d": [x, y]}, ...]; numbers with a decimal point are shares there too."""
    return "[" + ", ".join(f'{{"point_2d": [{_pair(x, y)}]}}' for x, y in shares(result)) + "]"


def as_count(result: PointingResult) -> str:
    """How many there are, in digits."""
    return str(count_of(result))


def as_words(result: PointingResult) -> str:
    """The answer in words."""
    return result.text


FORMS: Mapping[str, Form] = {
    "screenspot_v2": Form(as_click, "instruction", single=True),
    "screenspot_pro": Form(as_click, "instruction", single=True),
    "osworld_g": Form(as_click_or_refusal, "instruction"),
    "pointbench": Form(as_tuples, "user_input"),
    "pointbench_json": Form(as_json, "user_input"),
    "refspatial": Form(as_tuples, "prompt"),
    "where2place": Form(as_tuples, "question"),
    "where2place_json": Form(as_json, "question"),
    "countbench": Form(as_count),
    "countbenchqa": Form(as_count),
    "pixmo_count": Form(as_count),
}
"""By task. Parts of RefSpatial are tasks of their own ("refspatial_unseen_json"); other tasks are answered in
words."""


def form_of(task: str) -> Form:
    """The form of a task by its name."""
    if task.startswith("refspatial"):
        return Form(as_json if task.endswith("_json") else as_tuples, "prompt")
    return FORMS.get(task, Form(as_words))


@dataclass(frozen=True)
class Question:
    """A request of lmms-eval.

    Attributes:
        task: its name there.
        prompt: what is sent.
        pictures: PIL pictures, in order; empty for a clip or text alone.
        clip: path of a video, or None.
        max_new_tokens: of the answer.
    """

    task: str
    prompt: str
    pictures: tuple[Any, ...] = ()
    clip: str | None = None
    max_new_tokens: int = _DEFAULT_MAX_NEW_TOKENS


def question_of(arguments: Sequence[Any], task_rows: Mapping[str, Any], *, bare: bool = True) -> Question:
    """Reads a request.

    Args:
        arguments: of an lmms-eval instance: words, generation settings, function from a row to its media,
            number of the row, task, and split.
        task_rows: rows by task, split and number, as lmms-eval hands them to models.
        bare: send the bare instruction where the task has one.

    Raises:
        EvaluationError: the request is of another kind than text generation about pictures or one clip.
    """
    try:
        words, settings, media_of, number, task, split = arguments
    except (TypeError, ValueError) as error:
        raise EvaluationError(
            f"expected a request of six parts as lmms-eval 0.7 makes them, got {len(arguments)}; run a task "
            "of the kind generate_until"
        ) from error
    row = task_rows[task][split][number]
    media = [] if media_of is None else list(media_of(row) or [])
    field = form_of(task).field
    prompt = (
        str(row[field]).strip() if bare and field is not None else str(words).replace("<image>", "").strip()
    )
    limit = int((settings or {}).get("max_new_tokens") or _DEFAULT_MAX_NEW_TOKENS)
    clips = [each for each in media if isinstance(each, str)]
    if clips and len(media) > 1:
        raise EvaluationError(
            f"expected pictures or one video in task {task}, got {len(media)} media; such tasks cannot be run"
        )
    return Question(task, prompt, () if clips else tuple(media), clips[0] if clips else None, limit)


def answer_questions(pointer: Pointer, questions: Sequence[Question], batch_size: int) -> list[str]:
    """Texts in the order of the questions; one that fails is answered with nothing, and logged."""
    texts = [""] * len(questions)
    alike: dict[tuple[str, int], list[int]] = defaultdict(list)
    for i, question in enumerate(questions):
        if question.clip is not None:
            texts[i] = _about_clip(pointer, question)
        else:
            alike[question.task, question.max_new_tokens].append(i)
    for (task, limit), places in alike.items():
        form = form_of(task)
        answers = pointer.point_batch(
            [_picture(questions[i]) for i in places],
            [questions[i].prompt for i in places],
            batch_size=batch_size,
            on_error="yield",
            template="{}",
            single=form.single,
            max_new_tokens=limit,
        )
        for i, answer in zip(places, answers, strict=True):
            texts[i] = _text(answer, form, questions[i])
    return texts


def manifest() -> Any:
    """What lmms-eval's registry asks for; the target of the entry point."""
    registry = import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id=MODEL_NAME, simple_class_path=f"{__name__}.{_CLASS}")


_CLASS = "MolmoPointForLmmsEval"


@cache
def _model_class() -> type:
    """The class that lmms-eval makes; its base class is lmms-eval's, so it can only be made where that is
    installed.
    """
    try:
        base: Any = import_module("lmms_eval.api.model").lmms
    except ImportError as error:
        raise EvaluationError(
            f"expected lmms-eval to be installed, got {error}; `pip install lmms-eval`"
        ) from error

    class MolmoPointForLmmsEval(base):
        """See the module.

        Args:
            pretrained: name of the zoo, hub id, or folder.
            revision: branch, tag or commit on the hub.
            dtype: float32, bfloat16, float16 or auto.
            device: by default a GPU if there is one.
            batch_size: pictures per run of the model.
            prompt: "bare" or "task".
        """

        is_simple = True

        def __init__(
            self,
            pretrained: str = "nano",
            revision: str | None = None,
            dtype: str | None = None,
            device: str | None = None,
            batch_size: int | str = 1,
            prompt: str = "bare",
        ) -> None:
            super().__init__()
            if prompt not in ("bare", "task"):
                raise EvaluationError(f"expected prompt=bare or prompt=task, got {prompt!r}")
            from molmopoint.pipeline import load

            self.pointer = load(pretrained, revision=revision, dtype=dtype, device_map=device)
            self.batch_size = int(batch_size)
            self.is_bare = prompt == "bare"

        @property
        def device(self) -> Any:
            """Where the model is; lmms-eval gathers there."""
            return self.pointer.model.device

        def generate_until(self, requests: list[Any]) -> list[str]:
            """One text per request, in order."""
            questions = [question_of(request.args, self.task_dict, bare=self.is_bare) for request in requests]
            return answer_questions(self.pointer, questions, self.batch_size)

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            """Not offered."""
            raise NotImplementedError(
                "conversations of several rounds are not offered; run a task of the kind generate_until"
            )

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            """Not offered."""
            raise NotImplementedError(
                "likelihoods of texts are not offered; run a task of the kind generate_until"
            )

    return MolmoPointForLmmsEval


def __getattr__(name: str) -> Any:
    if name == _CLASS:
        return _model_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _picture(question: Question) -> Any:
    """One picture as it is, several as a list, which is one request."""
    pictures = question.pictures
    return (pictures[0] if len(pictures) == 1 else list(pictures)) if pictures else None


def _about_clip(pointer: Pointer, question: Question) -> str:
    form = form_of(question.task)
    try:
        answer = pointer.point_video(
            question.clip, question.prompt, template="{}", max_new_tokens=question.max_new_tokens
        )
    except (ValueError, OSError, RuntimeError) as error:
        return _text(error, form, question)
    return _text(answer, form, question)


def _text(answer: PointingResult | Exception, form: Form, question: Question) -> str:
    if isinstance(answer, Exception):
        logger.warning(
            "%s: %r failed and is answered with nothing: %s", question.task, question.prompt[:80], answer
        )
        return ""
    return form.write(answer)


def _pair(x: float, y: float) -> str:
    # Always with a decimal point: readers take whole numbers for another scale.
    return f"{x:.6f}, {y:.6f}"
