"""A reward model over HTTP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")

from fastapi.testclient import TestClient

import molmopoint
from molmopoint.serving import Limits, app
from molmopoint.serving.client import Client
from molmopoint.serving.messages import ServerError

SHAPES = Path(__file__).resolve().parents[2] / "examples" / "images" / "shapes.png"
QUESTION = "How many red circles are there?"
RESPONSES = ["There are 2 red circles.", "There are 7 red circles.", "None."]


def test_scores_are_those_of_the_judge(monkeypatch: pytest.MonkeyPatch):
    pointer = molmopoint.load("nano", device_map="cpu")
    judge = molmopoint.load_reward("nano-reward", device_map="cpu")
    expected = judge.score(QUESTION, RESPONSES, images=str(SHAPES))
    limits = Limits(responses=3)
    with TestClient(app({"nano": pointer}, reward_models={"judge": judge}, limits=limits)) as http:
        remote = Client("http://testserver")
        monkeypatch.setattr(remote, "_http", http)
        scores = remote.score(QUESTION, RESPONSES, SHAPES)
        np.testing.assert_allclose(scores, expected, atol=1e-5)
        body = {"prompt": QUESTION, "responses": RESPONSES}
        answer = http.post("/v1/reward", json=body).json()
        assert sorted(answer["order"]) == [0, 1, 2] and answer["model"] == "judge"
        ranked = [answer["scores"][number] for number in answer["order"]]
        assert ranked == sorted(ranked, reverse=True)
        for change, status in (
            ({"responses": []}, 422),
            ({"responses": ["a", " "]}, 400),
            ({"responses": ["a"] * 4}, 400),
            ({"images": ["AAAA"]}, 400),
            ({"model": "nano"}, 404),
            ({"permutations": 0}, 422),
        ):
            assert http.post("/v1/reward", json=body | change).status_code == status, change


def test_a_server_without_one_says_so(monkeypatch: pytest.MonkeyPatch):
    pointer = molmopoint.load("nano", device_map="cpu")
    with TestClient(app({"nano": pointer})) as http:
        remote = Client("http://testserver")
        monkeypatch.setattr(remote, "_http", http)
        with pytest.raises(ServerError, match="--reward") as refused:
            remote.score(QUESTION, RESPONSES)
        assert refused.value.status == 404
    with pytest.raises(ValueError, match="names of their own"):
        app({"nano": pointer}, reward_models={"nano": lambda: None})
