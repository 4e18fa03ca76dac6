"""CountBenchQA: questions about a number of things, 2 to 10, in pictures of the web. Source: PaliGemma, arXiv
2407.07726.

The pictures are those of CountBench on the hub, of which a tenth has no picture; the questions are a list of
their own, one per row in the same order. Both are needed. One picture is grey; PaliGemma's own loader leaves
it out, we ask about it.

See `protocols/counting.py` for the rules.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from molmopoint.errors import EvaluationError
from molmopoint.eval.benchmark import DatasetSource, Item, Items
from molmopoint.eval.datasets.rows import (
    ItemCollector,
    find_parquet,
    json_rows,
    keep_picture,
    read_rows,
    text_of,
    whole_number,
    write_parquet,
)
from molmopoint.eval.fixtures.scenes import png, scene_with
from molmopoint.eval.protocols.counting import CountingBenchmark

QUESTIONS = "countbench_paired_questions.json"
_ADVICE = f"{QUESTIONS} comes from big_vision/datasets/countbenchqa/data of github.com/google-research/big_vision; put it beside `data`"


class CountbenchQA(CountingBenchmark):
    """See the module for the data, and `CountingBenchmark` for the rules."""

    name = "countbench_qa"
    title = "CountBenchQA (PaliGemma, arXiv 2407.07726)"
    source = DatasetSource(
        "nielsr/countbench",
        patterns=("data/train-*.parquet",),
        note=_ADVICE,
        licence="see the data set's card",
    )

    def read(self, folder: Path) -> Items:
        """Joins rows and questions by their place; pictures are unpacked from the rows once."""
        files = find_parquet(folder, "train")
        questions = json_rows(folder / QUESTIONS, _ADVICE)
        rows = list(read_rows(files, ("image_url",)))
        if len(rows) != len(questions):
            raise EvaluationError(
                f"expected a question for each of the {len(rows)} rows, got {len(questions)} in "
                f"{QUESTIONS}; they are not of one data set"
            )
        collected = ItemCollector()
        for row, question in zip(read_rows(files, ("image_url", "number", "image")), questions, strict=True):
            prompt = text_of(question, "question")
            count = whole_number(row["number"])
            image = keep_picture(row["image"], folder) or folder / "no picture in the data"
            cluster = str(row["image_url"] or image.name)
            item_id = collected.name(f"{cluster}/{prompt}")
            if not prompt:
                collected.miss(item_id, "no question", cluster)
            elif count is None:
                collected.miss(item_id, "no count", cluster)
            else:
                categories = {"count": str(count)}
                collected.add(
                    Item(item_id, prompt, (image,), truth=count, categories=categories, cluster=cluster)
                )
        return collected.items()

    def write_fixture(self, folder: Path, rng: np.random.Generator) -> None:
        """Four items, with what the real data has too: a row without its picture, and a grey picture."""
        import pyarrow as pa

        rows, questions = [], []
        for i, targets in enumerate((2, 3, 2, 2)):
            scene, query = scene_with(rng, targets)
            picture = scene.image.convert("L") if i == 2 else scene.image
            row = {
                "image_url": f"https://example.org/{i}.jpg",
                "text": f"A picture of {targets} {query.label}",
                "number": targets,
                "image": {"bytes": png(picture), "path": None},
            }
            if i == 3:
                row["image"] = None
            rows.append(row)
            questions.append({"question": f"How many {query.label} are there in the image?"})
        types = {
            "image_url": pa.string(),
            "text": pa.string(),
            "number": pa.int64(),
            "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        }
        write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows, types)
        (folder / QUESTIONS).write_text(json.dumps(questions), encoding="utf-8")
