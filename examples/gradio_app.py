"""A page of your own around a model, in thirty lines: `pip install gradio`, then `python examples/gradio_app.py`.

For a page that is there already, see `molmopoint serve`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

import molmopoint

PICTURE = Path(__file__).parent / "images" / "shapes.png"


def page(pointer: molmopoint.Pointer) -> gr.Interface:
    """A form with a picture, a phrase and a least score, and the answer beside it."""

    def answer(picture: Image.Image | None, phrase: str, least: float) -> tuple[Any, dict[str, Any]]:
        if picture is None:
            raise gr.Error("Drop a picture first.")
        try:
            result = pointer.point(picture, phrase, min_score=least)
        except molmopoint.errors.MolmoPointError as error:
            raise gr.Error(str(error)) from error
        return result.draw(), result.to_dict()

    asked = [gr.Image(type="pil"), gr.Textbox(label="Point to"), gr.Slider(0, 1, label="Least score")]
    example = [str(PICTURE), "the red circles", 0.0]
    return gr.Interface(
        answer, asked, [gr.Image(), gr.JSON()], examples=[example], cache_examples=False,
        flagging_mode="never", analytics_enabled=False, title="Point", api_name="point",
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano", help="zoo name, hub id or folder")
    parser.add_argument("--port", type=int, default=7860)
    arguments = parser.parse_args()
    page(molmopoint.load(arguments.model)).launch(server_name="127.0.0.1", server_port=arguments.port)
