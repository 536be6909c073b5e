"""What Prometheus reads: counters, times and the distribution of scores, without ids and texts."""

from collections import deque
from collections.abc import Mapping
from threading import Lock

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from diptych.calibrate.drift import stability_index
from diptych.serve.models import Resident

TIMES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
BINS = tuple(step / 20 for step in range(1, 21))
COUNTS = (0.0, 10.0, 20.0, 36.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 10_000.0)
LIVE, REFERENCE = 1000, 500  # scores that drift is measured on, and those that it is measured against


class Metrics:
    """All metrics of one service, in a registry of its own.

    Args:
        reference: scores of each model before the service, such as those of dev; without them, the first
            500 scores of the service are the reference.
    """

    def __init__(self, *, reference: Mapping[str, np.ndarray] | None = None) -> None:
        # Not the global registry: two services in one process, as in tests, would count together.
        made = self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=made)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"diptych_{name}", text, labels, registry=made)

        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = TIMES) -> Histogram:
            return Histogram(f"diptych_{name}", text, labels, buckets=buckets, registry=made)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"diptych_{name}", text, labels, registry=made)

        self.requests = counter("requests_total", "Answered requests.", "path", "code")
        self.request_seconds = histogram("request_seconds", "From arrival to answer.", "path")
        self.queue_seconds = histogram("queue_seconds", "In the queue.")
        self.model_seconds = histogram("model_seconds", "Of a batch in the model.", "model")
        self.prepare_seconds = histogram("prepare_seconds", "Before the queue.", "stage")
        self.explain_seconds = histogram("explain_seconds", "Of the evidence for a verdict.", "model")
        self.batch_rows = histogram("batch_rows", "Memes of a batch.", "model", buckets=ROWS)
        self.fill = histogram("batch_fill_ratio", "Real over padded tokens of a batch.", buckets=BINS)
        self.queue_items = gauge("queue_items", "Memes in the queue.")
        self.review_items = gauge("review_items", "Memes that wait for people.")
        self.job_items = gauge("job_items", "Memes of jobs that are not scored yet.")
        self.inflight = gauge("inflight", "Memes that are accepted and not answered.")
        self.refused = counter("refused_total", "Memes that got no answer, by type of problem.", "reason")
        self.expired = counter("expired_total", "Memes whose deadline passed.")
        self.cancelled = counter("cancelled_total", "Memes whose client went away.")
        self.cache = counter("cache_total", "Look-ups of repeated memes.", "result")
        self.decisions = counter("decisions_total", "Decisions.", "model", "policy", "action")
        self.score = histogram("score", "Scores of the positive class.", "model", buckets=BINS)
        self.characters = histogram("ocr_characters", "Characters read from a picture.", buckets=COUNTS)
        self.regions = histogram("regions", "Regions of a picture.", buckets=COUNTS)
        self.bad_pictures = counter("bad_pictures_total", "Pictures that were refused.", "reason")
        self.feedback = counter("feedback_total", "Decisions of people.", "action", "label")
        self.memory_cases = gauge("memory_cases", "Judged memes in the memory of a model.", "model")
        self.model_info = gauge("model_info", "Always 1.", "model", "sha256", "calibration")
        self.reloads = counter("reload_total", "Reloads of models.", "result")
        self.failures = counter("model_failures_total", "Memes that a model failed on.", "model")
        self.psi = gauge(
            "drift_psi", "Stability index of the scores: below 0.1 quiet, above 0.25 an alarm.", "model"
        )
        self._reference = {name: np.asarray(scores) for name, scores in (reference or {}).items()}
        self._first: dict[str, list[float]] = {}
        self._live: dict[str, deque[float]] = {}
        self._lock = Lock()

    def scored(self, model: str, score: float) -> None:
        """Count a score of the positive class."""
        self.score.labels(model).observe(score)
        with self._lock:
            # Without scores of dev, drift is measured against the service's own beginning.
            if model not in self._reference:
                first = self._first.setdefault(model, [])
                first.append(score)
                if len(first) == REFERENCE:
                    self._reference[model] = np.array(self._first.pop(model))
                return
            self._live.setdefault(model, deque(maxlen=LIVE)).append(score)

    def know(self, model: Resident, calibration: str) -> None:
        """State which model is served."""
        # Collected into a list first, because removing changes what is iterated.
        for labels in [one.labels for one in next(iter(self.model_info.collect())).samples]:
            if labels["model"] == model.name:  # of before a reload
                self.model_info.remove(*labels.values())
        self.model_info.labels(model.name, model.sha256, calibration).set(1)
        if model.memory is not None:
            self.memory_cases.labels(model.name).set(len(model.memory.current().memory.cases))

    def forget(self, model: str) -> None:
        """Begin the drift of a model anew: another model has another distribution of scores."""
        with self._lock:
            for known in (self._reference, self._first, self._live):
                known.pop(model, None)

    def text(self) -> bytes:
        """All metrics in Prometheus' format."""
        # The index costs a sort, so it is computed when somebody looks.
        with self._lock:
            pairs = [(name, self._reference[name], np.array(live)) for name, live in self._live.items()]
        for name, before, live in pairs:
            # Fewer scores say nothing: their index is large by chance.
            if len(live) >= LIVE // 10:
                self.psi.labels(name).set(stability_index(before, live))
        return generate_latest(self.registry)
