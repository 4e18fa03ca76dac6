"""Whatever fits the description of the server is answered without a fault of the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import molmopoint
from molmopoint.serving import Limits, app

LIMITS = Limits(queue=64, tokens=64, seconds=30.0, jobs=64, inline_seconds=5.0)


@pytest.mark.slow
def test_no_request_is_a_fault_of_the_server():
    schemathesis = pytest.importorskip("schemathesis")
    application = app({"nano": molmopoint.load("nano", device_map="cpu")}, limits=LIMITS)
    description = schemathesis.openapi.from_asgi("/openapi.json", application)
    tried = []
    for found in description.get_all_operations():
        operation = found.ok()
        _try(operation)
        tried.append(operation.label)
    assert "POST /v1/point" in tried and "GET /v1/jobs/{identity}" in tried
    application.state.server.close()


def _try(operation: Any) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    def ask(case: Any) -> None:
        response = case.call()
        assert response.status_code < 500 or response.status_code in (503, 504), response.text
        if response.status_code >= 400:
            assert response.json()["error"]["message"]

    ask()
