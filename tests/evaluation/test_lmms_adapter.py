"""The adapter for lmms-eval: its text forms and requests here, its own registry and parsers where it is
installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toy_pointer import toy_pointer

from molmopoint.errors import EvaluationError
from molmopoint.eval import lmms_adapter
from molmopoint.eval.lmms_adapter import FORMS, Question, answer_questions, as_click, form_of, question_of
from molmopoint.pipeline import Pointer, PointingResult
from molmopoint.points import Points

SIZE = (200, 100)
TASKS = (*FORMS, "refspatial_unseen", "refspatial_unseen_json")


@pytest.fixture(scope="module")
def pointer() -> Pointer:
    return toy_pointer()


@pytest.fixture(scope="module")
def answered(pointer) -> PointingResult:
    return pointer.point(Image.new("RGB", SIZE), "it", max_new_tokens=8)


def result(
    answered: PointingResult, *xy: tuple[float, float], text: str = "There are none.", **fields: Any
) -> PointingResult:
    places = np.array(xy, dtype=float).reshape(-1, 2)
    group = fields.pop("group", np.zeros(len(places)))
    points = Points(
        np.arange(1, len(places) + 1),
        np.array(group, dtype=float),
        *places.T,
        score=np.full(len(places), np.nan),
    )
    return replace(answered, points=points, text=text, **{"image_sizes": (SIZE,), **fields})


@pytest.mark.parametrize(
    ("task", "some", "nothing"),
    [
        ("screenspot_v2", "[0.250000, 0.500000]", "none"),
        ("screenspot_pro", "[0.250000, 0.500000]", "none"),
        ("osworld_g", "[0.250000, 0.500000]", "[-1, -1]"),
        ("pointbench", "[(0.250000, 0.500000), (1.000000, 0.000000)]", "[]"),
        ("pointbench_json", '[{"point_2d": [0.250000, 0.500000]}, {"point_2d": [1.000000, 0.000000]}]', "[]"),
        ("refspatial_location", "[(0.250000, 0.500000), (1.000000, 0.000000)]", "[]"),
        (
            "refspatial_location_json",
            '[{"point_2d": [0.250000, 0.500000]}, {"point_2d": [1.000000, 0.000000]}]',
            "[]",
        ),
        ("countbench", "2", "0"),
        ("pixmo_count", "2", "0"),
        ("mmmu_val", "Two cups.", "There are none."),
    ],
)
def test_forms(answered, task, some, nothing):
    write = form_of(task).write
    assert write(result(answered, (50, 50), (200, 0), text="Two cups.")) == some
    assert write(result(answered)) == nothing


def test_points_of_several_pictures_are_shares_of_their_own(answered):
    made = result(answered, (50, 50), (50, 50), group=[0, 1], image_sizes=(SIZE, (100, 100)))
    assert lmms_adapter.shares(made) == [(0.25, 0.5), (0.5, 0.5)]


def test_a_click_reads_as_two_numbers_with_a_point(answered):
    x, y = json.loads(as_click(result(answered, (0, 100))))
    assert (x, y) == (0.0, 1.0) and isinstance(x, float)


def request(
    task: str, row: dict[str, Any], *, words: str = "<image>Say [x, y].", **settings: Any
) -> tuple[tuple[Any, ...], dict]:
    return (words, settings, lambda row: row.get("media"), 3, task, "test"), {task: {"test": {3: row}}}


def test_the_bare_instruction_is_sent_instead_of_a_request_for_coordinates():
    row = {"media": [Image.new("RGB", SIZE)], "instruction": " close the window "}
    question = question_of(*request("screenspot_v2", row, max_new_tokens=128))
    assert (question.prompt, question.max_new_tokens, len(question.pictures)) == ("close the window", 128, 1)
    assert question_of(*request("screenspot_v2", row), bare=False).prompt == "Say [x, y]."
    assert question_of(*request("mmmu_val", row)).prompt == "Say [x, y]."


def test_a_video_is_a_clip():
    assert question_of(*request("any", {"media": ["a.mp4"]})) == Question("any", "Say [x, y].", clip="a.mp4")
    assert question_of(*request("any", {"media": None})) == Question("any", "Say [x, y].")


def test_requests_that_cannot_be_answered_are_refused():
    with pytest.raises(EvaluationError, match="one video"):
        question_of(*request("any", {"media": ["a.mp4", "b.mp4"]}))
    with pytest.raises(EvaluationError, match=r"six parts .* got 2"):
        question_of(("context", "continuation"), {})


def test_answers_come_in_the_order_of_the_questions(pointer, caplog):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)) for _ in range(3)]
    questions = [
        Question("pointbench", "a", (pictures[0],), max_new_tokens=24),
        Question("screenspot_v2", "b", (pictures[1],), max_new_tokens=24),
        Question("any", "c", clip="there is no such file.mp4"),
        Question("pointbench", "d", (pictures[2],), max_new_tokens=24),
        Question("pointbench", "e", ("broken",), max_new_tokens=24),
    ]
    texts = answer_questions(pointer, questions, batch_size=2)
    alone = [form_of(q.task).write(pointer.point(q.pictures[0], q.prompt, template="{}", max_new_tokens=24, single=form_of(q.task).single))
             for q in (questions[0], questions[1], questions[3])]  # fmt: skip
    assert [texts[0], texts[1], texts[3]] == alone
    assert re.fullmatch(r"\[\d\.\d+, \d\.\d+\]", texts[1])
    assert texts[2] == texts[4] == "" and caplog.text.count("answered with nothing") == 2


def test_without_lmms_eval_the_message_says_what_to_install():
    if importlib.util.find_spec("lmms_eval") is not None:
        pytest.skip("lmms-eval is installed")
    with pytest.raises(EvaluationError, match="pip install lmms-eval"):
        _ = lmms_adapter.MolmoPointForLmmsEval
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = lmms_adapter.nothing_of_this_name


# With lmms-eval


@pytest.fixture
def installed() -> None:
    pytest.importorskip("lmms_eval.models", reason="lmms-eval is not installed")


@pytest.mark.usefixtures("installed")
def test_its_registry_takes_our_model():
    registry = importlib.import_module("lmms_eval.models.registry_v2").ModelRegistryV2()
    registry.register_manifest(lmms_adapter.manifest())
    made = registry.get_model_class("molmopoint").create_from_arg_string(
        "pretrained=nano", {"batch_size": "2", "device": "cpu"}
    )
    made.task_dict = {
        "screenspot_v2": {
            "test": [{"image": Image.new("RGB", (96, 64), "red"), "instruction": "the red thing"}]
        }
    }
    asked = SimpleNamespace(
        args=("words", {"max_new_tokens": 64}, lambda row: [row["image"]], 0, "screenspot_v2", "test")
    )
    (text,) = made.generate_until([asked])
    assert re.fullmatch(r"\[\d\.\d+, \d\.\d+\]", text)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("task", ["screenspot_v2", "screenspot_pro", "osworld_g"])
def test_its_tasks_read_our_clicks(answered, task):
    utils = pytest.importorskip(f"lmms_eval.tasks.{task}.utils", exc_type=ImportError)
    assert utils._parse_point(form_of(task).write(result(answered, (50, 50)))) == (0.25, 0.5)
    assert utils._parse_point(form_of(task).write(result(answered))) == (
        (-1, -1) if task == "osworld_g" else None
    )


@pytest.mark.usefixtures("installed")
def test_its_tasks_read_our_point_lists(answered):
    made = result(answered, (50, 50), (199, 0))
    utils = pytest.importorskip("lmms_eval.tasks.pointbench.utils", exc_type=ImportError)
    assert utils._text_to_points(form_of("pointbench").write(made), *SIZE).tolist() == [[50, 50], [199, 0]]
    read = importlib.import_module("lmms_eval.tasks._task_utils.point_format").parse_point2d
    assert read(form_of("pointbench_json").write(made), *SIZE).tolist() == [[50, 50], [199, 0]]
    assert len(read(form_of("pointbench_json").write(result(answered)), *SIZE)) == 0


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("task", TASKS)
def test_every_form_is_of_a_task_that_is_there(task):
    folder = (
        importlib.import_module("importlib.resources").files("lmms_eval.tasks")
        / task.split("_json")[0].split("_unseen")[0]
    )
    assert folder.is_dir()
