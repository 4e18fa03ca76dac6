"""Published preferences, as they are on the hub: questions with answers of which some are better than others.

The sets that the reward models of arXiv 2604.10966 were trained on, but for LLaVA-Critic, whose answers stand in
the prose of its questions. Each reader gives the columns of `docs/reward_training.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from molmopoint.data.importers.hub_rows import entries_of
from molmopoint.data.importers.journal import Journal
from molmopoint.data.importers.reading import PathLike, picture_path, read_rows
from molmopoint.data.importers.values import label_text, number, objects, one_of, required, short, whole_text
from molmopoint.errors import ProcessingError

Source = PathLike | Iterable[Mapping[str, Any]]
"""A JSONL or JSON file, or the loaded data set."""

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
"""What stands in front of turns in prompts of Nectar."""

_PEOPLE, _MODELS = ("user", "human"), ("assistant", "gpt", "model")
"""Who asks, and who answers."""

_PLACEHOLDER = "<image>"
"""Where the picture stands in questions of POVID and others in the form of LLaVA."""


def read_vlfeedback(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """VLFeedback (MMInstruction/VLFeedback): up to four answers, each with ratings, whose mean is its score.

    Args:
        source: rows with `prompt` and `completions`, each with `response`, `model` and `annotations`.
        journal: hears which rows are left out, and of answers without any rating.
        images: folder of the pictures; `img_path` starts there, else the file is `<id>.jpg` or another picture.
    """
    for where, row in _rows(source, "prompt and completions", journal):
        try:
            responses, scores, models = [], [], []
            for index, completion in enumerate(entries_of(required(row, "completions", where), where)):
                place = f"{where}, completion {index}"
                score = _mean_rating(completion.get("annotations"), place)
                if score is None:
                    journal.skip("answers without a rating", f"{place}: left out, it has no rating")
                    continue
                responses.append(required(completion, "response", place))
                scores.append(score)
                models.append(_model_name(completion))
            picture = _picture(row, images, ("img_path", "image"), "id", where)
            prompt = required(row, "prompt", where)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {"image": picture, "prompt": prompt, "responses": responses, "scores": scores, "models": models}


def _model_name(answer: Mapping[str, Any]) -> str:
    """Who wrote an answer."""
    name = answer.get("model")
    return name if isinstance(name, str) and name else "unknown"


def _mean_rating(annotations: Any, where: str) -> float | None:
    """Mean over the aspects that were rated; "N/A" is none."""
    if not isinstance(annotations, Mapping):
        raise ProcessingError(
            f"{where}: expected annotations by aspect, got {short(annotations)}; check the format"
        )
    ratings = []
    for aspect, annotation in annotations.items():
        given = annotation.get("Rating") if isinstance(annotation, Mapping) else None
        if given is None or (isinstance(given, str) and given.strip().upper() in ("", "N/A")):
            continue
        try:
            ratings.append(number(float(given), f"{where}, {short(aspect)}"))
        except (TypeError, ValueError, OverflowError) as error:
            raise ProcessingError(
                f"{where}, {short(aspect)}: expected a rating, a number or N/A, got {short(given)}; correct it"
            ) from error
    return sum(ratings) / len(ratings) if ratings else None


def read_rlaif_v(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """RLAIF-V (openbmb/RLAIF-V-Dataset): a better and a worse answer about a picture.

    Args:
        source: rows with `question`, `chosen` and `rejected`.
        journal: hears which rows are left out.
        images: folder of the pictures; `image_path` starts there, else the file is `<idx>.jpg`.
    """
    for where, row in _rows(source, "question, chosen and rejected", journal):
        try:
            picture = _picture(row, images, ("image_path", "image"), "idx", where)
            columns = {"prompt": required(row, "question", where), **_pair(row, where)}
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {"image": picture, **columns}


def read_mm_rlhf(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """MM-RLHF (yifanzhang114/MM-RLHF, dpo_pairs.jsonl): pairs about a picture or a video.

    Args:
        source: rows with `prompt`, `chosen`, `rejected`, and `image` or `video`.
        journal: hears which rows are left out.
        images: folder in which `image` and `video` begin.
    """
    for where, row in _rows(source, "prompt, chosen and rejected", journal):
        try:
            kind = "video" if row.get("video") else "image"
            file = picture_path(Path(images), required(row, kind, where), where)
            columns = {"prompt": required(row, "prompt", where), **_pair(row, where)}
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {kind: str(file), **columns}


def read_povid(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """POVID (YiyangAiLab/POVID_preference_data_for_VLLMs): an answer, and one with hallucinations put into it.

    Args:
        source: rows with `image`, `conversations` and `rejected_conversations`, in the form of LLaVA.
        journal: hears which rows are left out.
        images: folder in which `image` begins.
    """
    for where, row in _rows(source, "image, conversations and rejected_conversations", journal):
        try:
            picture = picture_path(Path(images), required(row, "image", where), where)
            prompt, chosen = _turns(row, "conversations", "from", "value", where)
            other, rejected = _turns(row, "rejected_conversations", "from", "value", where)
            _check_same(prompt, other, where)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {"image": str(picture), "prompt": prompt, "chosen": chosen, "rejected": rejected}


def read_wildvision(source: Source, journal: Journal, images: PathLike) -> Iterator[dict[str, Any]]:
    """Battles of WildVision (WildVision/wildvision-battle): two models answered, and a person chose.

    Args:
        source: rows with `conversation_a`, `conversation_b` and `winner`; ties are left out, and conversations of
            several turns too.
        journal: hears which rows are left out.
        images: folder of the pictures; a path in `image` starts there, else the file is `<question_id>.jpg`.
    """
    for where, row in _rows(source, "conversation_a, conversation_b and winner", journal):
        winner = row.get("winner")
        if isinstance(winner, str) and winner.startswith("tie"):
            journal.skip("ties", f"{where}: left out, nobody won")
            continue
        try:
            one_of(winner, ("model_a", "model_b"), "winner")
            prompt, first = _turns(row, "conversation_a", "role", "content", where)
            other, second = _turns(row, "conversation_b", "role", "content", where)
            _check_same(prompt, other, where)
            picture = _picture(row, images, ("image",), "question_id", where)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        better, worse = (first, second) if winner == "model_a" else (second, first)
        yield {"image": picture, "prompt": prompt, "chosen": better, "rejected": worse}


def read_chat_pairs(source: Source, journal: Journal) -> Iterator[dict[str, Any]]:
    """Pairs of chats about text alone: Skywork-Reward-Preference, the preference mixtures of Tulu 3, and others.

    Args:
        source: rows with `chosen` and `rejected`, each a list of messages; those of several turns are left out.
        journal: hears which rows are left out.
    """
    for where, row in _rows(source, "chosen and rejected, lists of messages", journal):
        try:
            prompt, chosen = _turns(row, "chosen", "role", "content", where)
            other, rejected = _turns(row, "rejected", "role", "content", where)
            _check_same(prompt, other, where)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def read_nectar(source: Source, journal: Journal) -> Iterator[dict[str, Any]]:
    """Nectar (berkeley-nest/Nectar): seven ranked answers to a text.

    Args:
        source: rows with `prompt` and `answers`, each with `answer` and `rank`; those of several turns are left
            out.
        journal: hears which rows are left out.
    """
    for where, row in _rows(source, "prompt and answers", journal):
        try:
            text = whole_text(required(row, "prompt", where), f"{where}, prompt")
            turns = [
                turn for turn in text.removesuffix(" ").removesuffix(_ASSISTANT).split(_HUMAN) if turn.strip()
            ]
            if len(turns) != 1 or _ASSISTANT in turns[0]:
                raise ProcessingError(f"{where}: expected one turn, got several; rows of ours have one")
            answers = entries_of(required(row, "answers", where), f"{where}, answers")
            columns = {
                "responses": [required(answer, "answer", where) for answer in answers],
                "rankings": [number(required(answer, "rank", where), f"{where}, rank") for answer in answers],
                "models": [_model_name(answer) for answer in answers],
            }
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {"prompt": turns[0].strip(), **columns}


def read_pku_saferlhf(source: Source, journal: Journal, by: str = "better") -> Iterator[dict[str, Any]]:
    """PKU-SafeRLHF (PKU-Alignment/PKU-SafeRLHF): two answers to a text, compared for help and for safety.

    Args:
        source: rows with `prompt`, `response_0`, `response_1`, `better_response_id` and `safer_response_id`.
        journal: hears which rows are left out.
        by: "better" or "safer": which comparison counts.

    Raises:
        ProcessingError: another comparison, or a file of another kind.
    """
    one_of(by, ("better", "safer"), "by")
    for where, row in _rows(source, f"prompt, response_0, response_1 and {by}_response_id", journal):
        try:
            best = number(required(row, f"{by}_response_id", where), f"{where}, {by}_response_id")
            if best not in (0, 1):
                raise ProcessingError(f"{where}, {by}_response_id: expected 0 or 1, got {best:g}; correct it")
            answers = [required(row, f"response_{index}", where) for index in range(2)]
            prompt = required(row, "prompt", where)
        except ProcessingError as error:
            journal.skip("rows", f"left out: {error}")
            continue
        yield {"prompt": prompt, "chosen": answers[int(best)], "rejected": answers[1 - int(best)]}


def _rows(source: Source, wanted: str, journal: Journal) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows, and where each stands, for messages."""
    for position, row in read_rows(source, wanted, journal):
        yield f"row {position} of the source", row


def _pair(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The better and the worse answer."""
    return {name: required(row, name, where) for name in ("chosen", "rejected")}


def _picture(row: Mapping[str, Any], folder: PathLike, columns: tuple[str, ...], key: str, where: str) -> str:
    """The file of a row's picture: a path in one of the columns, else named by the key."""
    for column in columns:
        value = row.get(column)
        name = value.get("path") if isinstance(value, Mapping) else value
        if isinstance(name, str) and name:
            return str(picture_path(Path(folder), name, where))
    name = label_text(required(row, key, where), f"{where}, {key}")
    return str(picture_path(Path(folder), f"{name}.jpg", where))


def _check_same(question: str, other: str, where: str) -> None:
    """Refuses answers to different questions: none of them is better than the other.

    Raises:
        ProcessingError: as said.
    """
    if question != other:
        raise ProcessingError(
            f"{where}: expected two answers to one question, got answers to {short(question)} and {short(other)}; "
            "they cannot be compared"
        )


def _turns(row: Mapping[str, Any], column: str, role: str, content: str, where: str) -> tuple[str, str]:
    """Question and answer of a conversation of one turn.

    Raises:
        ProcessingError: it is none, or has several turns.
    """
    messages = objects(required(row, column, where), f"{where}, {column}")
    speakers = [message.get(role) for message in messages]
    is_turn = len(speakers) == 2 and speakers[0] in _PEOPLE and speakers[1] in _MODELS
    if not is_turn:
        raise ProcessingError(
            f"{where}, {column}: expected a question and its answer, got {len(messages)} messages by "
            f"{short(speakers)}; rows of ours have one turn"
        )
    question, answer = (
        whole_text(required(message, content, where), f"{where}, {column}") for message in messages
    )
    return question.replace(_PLACEHOLDER, "").strip(), answer
