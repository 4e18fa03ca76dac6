"""CountBenchQA: questions about a number of things, 2 to 10, in pictures of the web. Source: PaliGemma, arXiv 2407.07726.

The pictures are those of CountBench on the hub, of which a tenth has no picture; the questions are a list of their own, one per
row in the same order. Both are needed. One picture is grey; PaliGemma's own loader leaves it out, we ask about it.

See `layouts/counting.py` for the rules.
"""

from __future__ import annotations

from pathlib import Path

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import Item, Items, Source
from molmopoint.eval.layouts.boxes import CountingBenchmark, whole_number
from molmopoint.eval.layouts.parquet_rows import ItemCollector, find_parquet, json_rows, keep_picture, read_rows, text_of

QUESTIONS = "countbench_paired_questions.json"
_ADVICE = f"{QUESTIONS} comes from big_vision/datasets/countbenchqa/data of github.com/google-research/big_vision; put it beside `data`"


class CountbenchQA(CountingBenchmark):
    """See the module for the data, and `CountingBenchmark` for the rules."""

    name = "countbench_qa"
    title = "CountBenchQA (PaliGemma, arXiv 2407.07726)"
    source = Source("nielsr/countbench", patterns=("data/train-*.parquet",), note=_ADVICE, licence="see the data set's card")

    def read(self, folder: Path) -> Items:
        """Joins rows and questions by their place; pictures are unpacked from the rows once."""
        files = find_parquet(folder, "train")
        questions = json_rows(folder / QUESTIONS, _ADVICE)
        rows = list(read_rows(files, ("image_url",)))
        if len(rows) != len(questions):
            raise EvaluationError(
                f"expected a question for each of the {len(rows)} rows, got {len(questions)} in {QUESTIONS}; they are not of one data set"
            )
        collected = ItemCollector()
        for row, question in zip(read_rows(files, ("image_url", "number", "image")), questions, strict=True):
            prompt, count = text_of(question, "question"), whole_number(row["number"])
            image = keep_picture(row["image"], folder) or folder / "no picture in the data"
            cluster = str(row["image_url"] or image.name)
            item_id = collected.name(f"{cluster}/{prompt}")
            if not prompt or count is None:
                collected.miss(item_id, "no count" if prompt else "no question", cluster)
                continue
            collected.add(Item(item_id, prompt, (image,), truth=count, categories={"count": str(count)}, cluster=cluster))
        return collected.items()
