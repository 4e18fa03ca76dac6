"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Figures:
    """The figures of one server, in a registry of their own, so that several servers of a process do not mix.

    Attributes:
        requests: answers by path and status.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answers by path and status.", "path", "status")
        self._errors = self._counter("errors", "What was refused or failed, by kind.", "kind")
        self._tokens = self._counter("tokens", "Tokens read and written.", "model", "kind")
        self._batches = self._counter("batches", "Runs of the model, by their rows.", "model", "size")
        self._cached = self._counter("cached_pictures", "Pictures that were found encoded.", "model")
        self._stages = self._counter("stage_seconds", "Seconds of work, by stage.", "model", "stage")
        self._seconds = Histogram(
            "molmopoint_answer_seconds",
            "Seconds from the arrival of a question to its whole answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._gauges: dict[str, Gauge] = {}

    def count_error(self, kind: str) -> None:
        """One more that was refused or failed."""
        self._errors.labels(kind).inc()

    def of_model(self, name: str) -> ModelFigures:
        """Those of one model."""
        return ModelFigures(name, self._tokens, self._batches, self._cached, self._stages, self._seconds)

    def watch(self, name: str, text: str, model: str, read: Callable[[], float]) -> None:
        """A figure that is read when somebody asks for it."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"molmopoint_{name}", text, ["model"], registry=self._registry)
        self._gauges[name].labels(model).set_function(read)

    def text(self) -> bytes:
        """All of them in Prometheus' text form."""
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"molmopoint_{name}", text, labels, registry=self._registry)


class ModelFigures:
    """What is counted of one model.

    Args:
        name: of the model.
        tokens: by model and kind.
        batches: by model and size.
        cached: by model.
        stages: seconds by model and stage.
        seconds: of whole answers, by model.
    """

    def __init__(
        self,
        name: str,
        tokens: Counter,
        batches: Counter,
        cached: Counter,
        stages: Counter,
        seconds: Histogram,
    ) -> None:
        self._name = name
        self._batches = batches
        self._cached = cached.labels(name)
        self._prompt = tokens.labels(name, "prompt")
        self._completion = tokens.labels(name, "completion")
        self._seconds = seconds.labels(name)
        self._stages = {stage: stages.labels(name, stage) for stage in ("prepare", "encode", "answer")}

    def count_batch(self, size: int) -> None:
        """One run of the model with so many rows."""
        self._batches.labels(self._name, size).inc()

    def count_cached(self) -> None:
        """One request whose pictures were found encoded."""
        self._cached.inc()

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Work in "prepare", "encode" or "answer"."""
        self._stages[stage].inc(seconds)

    def count_answer(self, prompt_tokens: int, completion_tokens: int, seconds: float) -> None:
        """One whole answer."""
        self._prompt.inc(prompt_tokens)
        self._completion.inc(completion_tokens)
        self._seconds.observe(seconds)
