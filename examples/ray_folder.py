"""Asks about every picture of a folder on many GPUs or machines with Ray Data: `pip install "molmopoint[ray]"`, then

    python examples/ray_folder.py PICTURES "the red circles" --out points --workers 8 --gpus 1

Each worker loads the model once and answers batches; Ray reads files ahead, hands batches out and starts again what
broke. Without a cluster all of it runs on this machine. PICTURES and the folder of the answers may be addresses of a
bucket, such as `s3://...`.
"""

from __future__ import annotations

import argparse

import pyarrow as pa
import ray

import molmopoint
from molmopoint.files import PICTURE_SUFFIXES

# Named, because a block without points would leave it open what the points of others are.
PLACE = pa.struct({"x": pa.float32(), "y": pa.float32(), "score": pa.float32()})
COLUMNS = pa.schema(
    {"file": pa.string(), "text": pa.string(), "points": pa.list_(PLACE), "error": pa.string()}
)


class Worker:
    """One model, on one GPU or processor.

    Args:
        model: zoo name, hub id or folder.
        phrase: what to point at.
    """

    def __init__(self, model: str, phrase: str) -> None:
        self.pointer = molmopoint.load(model)
        self.phrase = phrase

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Answers for a batch of files; one that is no picture has the reason in `error`."""
        contents = batch["bytes"].to_pylist()
        rows = []
        answers = self.pointer.point_batch(contents, self.phrase, batch_size=len(contents), on_error="yield")
        for file, answer in zip(batch["path"].to_pylist(), answers, strict=True):
            row = {"file": file, "text": None, "points": [], "error": None}
            if isinstance(answer, Exception):
                row["error"] = str(answer)
            else:
                row["text"] = answer.text
                row["points"] = [
                    {"x": place.x, "y": place.y, "score": place.score} for place in answer.points
                ]
            rows.append(row)
        return pa.Table.from_pylist(rows, COLUMNS)


def main() -> None:
    """Writes lines of JSON, one per picture, into as many files as there were blocks."""
    parser = argparse.ArgumentParser(description="Asks about every picture of a folder with Ray Data.")
    parser.add_argument("folder")
    parser.add_argument("phrase", help="what to point at")
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures that a model sees at once")
    parser.add_argument("--workers", type=int, default=1, help="models that answer at the same time")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker")
    parser.add_argument("--out", default="points", help="folder of the answers")
    arguments = parser.parse_args()

    endings = [suffix.removeprefix(".") for suffix in PICTURE_SUFFIXES]
    files = ray.data.read_binary_files(arguments.folder, include_paths=True, file_extensions=endings)
    answers = files.map_batches(
        Worker,
        fn_constructor_args=(arguments.model, arguments.phrase),
        batch_format="pyarrow",
        batch_size=arguments.batch_size,
        compute=ray.data.ActorPoolStrategy(size=arguments.workers),
        num_gpus=arguments.gpus,
    )
    answers.write_json(arguments.out)
    print(f"{ray.data.read_json(arguments.out).count()} answers in {arguments.out}")


if __name__ == "__main__":
    main()
