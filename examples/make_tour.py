"""Runs the notebook anew and keeps its outputs: `python examples/make_tour.py` (needs the extra `[test]`).

Run it after cells of `tour.ipynb` or weights of the embedded models have changed. Of the outputs those are
kept that a reader wants: what is printed and shown, pictures as PNG alone, neither bars nor warnings.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TOUR = Path(__file__).parent / "tour.ipynb"

SECONDS = 300
"""Most that one cell may take."""


def execute(path: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in a new kernel; an exception in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    place = {"metadata": {"path": str(TOUR.parent)}}
    NotebookClient(notebook, timeout=SECONDS, resources=place).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(trimmed, cell.outputs) if output is not None]
            cell.metadata.pop("execution", None)  # when it ran
    return notebook


def trimmed(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """An output without what only concerns the run; None if nothing else is in it."""
    if output.output_type == "stream" and output.name == "stderr":
        return None
    if output.output_type == "display_data" and "image/png" not in output.data:
        return None
    if output.output_type in ("display_data", "execute_result"):
        output.data.pop("image/jpeg", None)
        output.data.pop("text/html", None)
    return output


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """What every cell prints, in order."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return ["".join(o.text for o in cell.outputs if o.output_type == "stream") for cell in cells]


def main() -> None:
    """Writes the notebook with its outputs."""
    parser = argparse.ArgumentParser(description="Runs the notebook anew and keeps its outputs.")
    parser.add_argument("--out", type=Path, default=TOUR, help="where to write it")
    arguments = parser.parse_args()

    begin = time.perf_counter()
    notebook = execute(TOUR)
    nbformat.write(notebook, arguments.out)
    seconds = time.perf_counter() - begin
    print(f"{arguments.out}  {arguments.out.stat().st_size / 1000:.0f} kB in {seconds:.0f} s")


if __name__ == "__main__":
    main()
