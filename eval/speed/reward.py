"""What judging all answers in one pass saves: `python -m molmopoint.eval.speed reward`.

The same prompt and answers are scored in five ways, by turns:

- joint: one pass over the prompt and all answers, each of which sees those before it;
- apart: one pass, too, but the answers do not see each other (block attention);
- separate: one pass per answer, each over the picture and the prompt;
- batched: the same rows as one batch;
- cached: the prompt once, then each answer behind its keys and values.

The last four give the same scores. Beside the measured gain stands what counting tokens promises, N (C + r) /
(C + N r) for N answers of r tokens behind a prompt of C: it knows neither the quadratic part of attention nor
the ViT.

Letters: C tokens of the prompt, r tokens of an answer, N answers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from molmopoint.eval.speed import report
from molmopoint.eval.speed.subjects import NAMES, WORD, Subject, build, default_setting, picture_prompt
from molmopoint.eval.speed.timing import Run, Setting, Summary, interleave, paired_ratio, seconds_of
from molmopoint.processing.rows import Row, collate
from molmopoint.reward.model import RewardModel
from molmopoint.reward.rows import Branch, PromptPart, branch_of, join_branches
from molmopoint.reward.settings import RewardSettings
from molmopoint.tokens import NO_SELECTION

LEAST_GAIN = 3.0
"""Of the joint pass over separate ones, at four short answers about a large picture."""
CHECKED = ("picture, short answers", 4)
COUNTS = (2, 4, 8)
SEPARATOR = WORD + 1
BASELINES = ("separate", "batched", "cached", "apart")

app = report.new_app()


@dataclass(frozen=True)
class Case:
    """What is judged.

    Attributes:
        name: for the table.
        picture: (width, height), or None for text alone.
        words: of the prompt behind the picture.
        answer: r.
    """

    name: str
    picture: tuple[int, int] | None
    words: int
    answer: int


CASES = (
    Case("picture, short answers", (1600, 1200), 0, 30),
    Case("picture, long answers", (1600, 1200), 0, 300),
    Case("text, short answers", None, 512, 30),
    Case("text, long answers", None, 512, 512),
)


class ScoringWays:
    """A reward model with random weights, and one prompt with its answers as ids.

    Args:
        model: on its device.
        prompt: all answers share it.
        answers: ids of each.
    """

    def __init__(self, model: RewardModel, prompt: PromptPart, answers: Sequence[list[int]]) -> None:
        self.model = model
        self.prompt = prompt
        self.answers = answers

    def joint(self) -> Tensor:
        """(N,) scores of one pass."""
        return self._run([join_branches(self.prompt, [self._list()])])[0]

    def apart(self) -> Tensor:
        """(N,) scores of one pass whose answers do not see each other."""
        branches = [branch_of(answer, SEPARATOR) for answer in self.answers]
        return self._run([join_branches(self.prompt, branches)])[0]

    def separate(self) -> Tensor:
        """(N,) scores of a pass for each answer."""
        return torch.cat([self._run([row])[0] for row in self._single_rows()])

    def batched(self) -> Tensor:
        """(N,) scores of one batch with a row for each answer."""
        return self._run(self._single_rows())[:, 0]

    def cached(self) -> Tensor:
        """(N,) scores of answers behind the keys and values of the prompt."""
        backbone: Any = self.model.backbone
        text = backbone.model.language_model
        device = backbone.device
        batch = self._batch([join_branches(self.prompt, [])])
        names = ("input_ids", "mm_token_type_ids", "pixel_values", "image_token_pooling")
        inputs = {name: batch[name] for name in names if name in batch}
        past = backbone(**inputs, use_cache=True, logits_to_keep=1).cache
        length = len(self.prompt)
        scores = []
        for answer in self.answers:
            count = len(answer)
            sees_prompt = torch.ones(count, length, dtype=torch.bool, device=device)
            causal = torch.ones(count, count, dtype=torch.bool, device=device).tril()
            mask = torch.cat([sees_prompt, causal], -1)[None, None]  # (1, 1, r, C + r)
            embeddings = text.embed_tokens(torch.tensor([answer], device=device))
            positions = torch.arange(length, length + count, device=device)[None]
            hidden = text.run_layers(embeddings, mask, positions, past)
            scores.append(self.model.value(text.norm(hidden[:, -1])))
            past.crop(-count)
        return torch.cat(scores)

    def _list(self) -> Branch:
        first, *others = self.answers
        ids = list(first)
        for answer in others:
            ids += [SEPARATOR, *answer]
        return branch_of(ids, SEPARATOR)

    def _single_rows(self) -> list[Row]:
        return [join_branches(self.prompt, [branch_of(answer, SEPARATOR)]) for answer in self.answers]

    def _batch(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        return {name: tensor.to(self.model.backbone.device) for name, tensor in collate(rows, 0).items()}

    def _run(self, rows: Sequence[Row]) -> Tensor:
        scores = self.model(**self._batch(rows)).scores
        assert scores is not None, "a pass gives scores"
        return scores


def ways_of(subject: Subject, model: RewardModel, case: Case, count: int) -> ScoringWays:
    """A case with its ids, with some words for text."""
    if case.picture is None:
        ids = torch.full((case.words,), WORD)
        prompt = PromptPart(ids, torch.zeros_like(ids))
    else:
        seen = {name: tensor.cpu() for name, tensor in picture_prompt(subject, 1, *case.picture).items()}
        ids = seen["input_ids"][0]
        selections = torch.full_like(ids, NO_SELECTION)
        pixels, table = seen["pixel_values"], seen["image_token_pooling"]
        prompt = PromptPart(ids, seen["mm_token_type_ids"][0], pixels, table, selections)
    answers = []
    for number in range(count):
        answers.append([WORD + 2 + (number + place) % 40 for place in range(case.answer)])
    return ScoringWays(model, prompt, answers)


def promised(prompt: int, answer: int, count: int) -> float:
    """Gain over separate passes by counting tokens."""
    return count * (prompt + answer) / (prompt + count * answer)


@app.command()
def reward(
    model: Annotated[str, typer.Argument(help=f"Of {', '.join(NAMES)}.")] = "toy",
    change: Annotated[
        str,
        typer.Option(
            "--set", help="Changes of the setting, such as device=cuda,dtype=bfloat16,clock=processor."
        ),
    ] = "",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    repeats: Annotated[
        int, typer.Option(min=1, help="Turns; one more comes before them and does not count.")
    ] = 5,
    counts: Annotated[str, typer.Option(help="Answers per prompt.")] = ",".join(map(str, COUNTS)),
    json_output: report.JsonOutput = False,
) -> None:
    """Times one joint pass over all answers against passes for each of them."""
    try:
        setting = default_setting(model, threads)
        if change:
            setting = setting.changed(change)
        numbers = [int(part) for part in counts.split(",")]
        subject = build(model, setting)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    with contextlib.redirect_stdout(sys.stderr):
        document = examine(subject, setting, repeats, numbers)
    (report.print_json if json_output else print_tables)(document)


def examine(
    subject: Subject,
    setting: Setting,
    repeats: int,
    counts: Sequence[int] = COUNTS,
    cases: Sequence[Case] = CASES,
) -> dict[str, Any]:
    """Measures all cases; the document that is printed."""
    setting.activate()
    model = RewardModel(subject.model, RewardSettings(), SEPARATOR).eval()
    rows = []
    for case in cases:
        for count in counts:
            rows.append(_measure(ways_of(subject, model, case, count), case, setting, repeats))
    return {
        "machine": report.machine(setting.device),
        "setting": setting.to_dict(),
        "model": subject.name,
        "rows": rows,
        "checks": [_check(row) for row in rows if (row["case"], row["answers"]) == CHECKED],
    }


def print_tables(document: dict[str, Any]) -> None:
    """The measurements for people."""
    console = report.console()
    report.print_facts(console, document["machine"] | document["setting"])
    over = [f"over {name}" for name in BASELINES]
    table = Table("case", "C", "r", "N", "joint, ms", *over, "promised", title=document["model"])
    for row in document["rows"]:
        sizes = [str(row[name]) for name in ("prompt_tokens", "answer_tokens", "answers")]
        joint = f"{row['milliseconds']['joint']['median']:.3g}"
        gains = [_gain(row["gain"][name]) for name in BASELINES]
        table.add_row(row["case"], *sizes, joint, *gains, f"{row['promised']:.2f}")
    console.print(table)
    for check in document["checks"]:
        verdict = "[green]holds[/]" if check["holds"] else "[red]fails[/]"
        gain = f"{_gain(check['gain'])} (at least {LEAST_GAIN})"
        console.print(f"joint over separate, {check['answers']} answers, {check['case']}: {gain} {verdict}")


def _measure(ways: ScoringWays, case: Case, setting: Setting, repeats: int) -> dict[str, Any]:
    def timed(score: Callable[[], Tensor]) -> Run:
        return lambda: {"seconds": seconds_of(score, setting)}

    runs = {name: timed(getattr(ways, name)) for name in ("joint", *BASELINES)}
    with torch.inference_mode():
        seconds = {name: values["seconds"] for name, values in interleave(runs, repeats).items()}
    prompt = len(ways.prompt)
    count = len(ways.answers)
    return {
        "case": case.name,
        "prompt_tokens": prompt,
        "answer_tokens": case.answer,
        "answers": count,
        "milliseconds": {name: Summary.of(values).to_dict(1e3) for name, values in seconds.items()},
        "gain": {name: paired_ratio(seconds[name], seconds["joint"]).to_dict() for name in BASELINES},
        "promised": promised(prompt, case.answer, count),
    }


def _check(row: Mapping[str, Any]) -> dict[str, Any]:
    gain = row["gain"]["separate"]
    return {
        "case": row["case"],
        "answers": row["answers"],
        "gain": gain,
        "holds": gain["median"] >= LEAST_GAIN,
    }


def _gain(summary: Mapping[str, float]) -> str:
    return f"{summary['median']:.2f} ({summary['low']:.2f} to {summary['high']:.2f})"


if __name__ == "__main__":
    app(prog_name="python -m molmopoint.eval.speed.reward")
