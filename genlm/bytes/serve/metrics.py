"""What a server counts, in the format of Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from genlm.bytes.backends.async_lm import cached
from genlm.bytes.contexts.cached_lm import CachedLM
from genlm.bytes.engine import adopt
from genlm.bytes.serve.admission import Admission
from genlm.bytes.serve.catalog import Catalog

__all__ = ["Metrics"]

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """The counters of one server: several in a process have their own."""

    def __init__(self, catalog: Catalog, admission: Admission) -> None:
        self.registry = CollectorRegistry()
        named: Any = {"registry": self.registry, "namespace": "genlm_bytes"}
        self.requests = Counter("requests", "Requests, by path and status.", ["path", "status"], **named)
        self.seconds = Histogram(
            "request_seconds",
            "From a request's first byte to its answer's last.",
            ["path"],
            buckets=SECONDS,
            **named,
        )
        self.first = Histogram(
            "first_chunk_seconds", "To the first event of a stream.", buckets=SECONDS, **named
        )
        self.prompt_bytes = Counter("prompt_bytes", "Bytes of prompts that were read.", **named)
        self.completion_bytes = Counter("completion_bytes", "New bytes given.", **named)
        self.registry.register(_Now(catalog, admission))
        ProcessCollector(registry=self.registry)  # memory and open files, where the system tells

    def text(self) -> bytes:
        """All of it, as it is scraped."""
        return generate_latest(self.registry)


class _Now(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, catalog: Catalog, admission: Admission) -> None:
        self._catalog, self._admission = catalog, admission

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("genlm_bytes_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
        yield GaugeMetricFamily("genlm_bytes_running", "Requests that are worked.", self._admission.running)
        yield GaugeMetricFamily("genlm_bytes_queue", "Requests that wait.", self._admission.waiting)
        yield GaugeMetricFamily("genlm_bytes_models_loading", "Models not ready.", len(self._catalog.loading))
        told = {
            "forwards": "Forwards, or calls of the model.",
            "tokens_run": "Tokens that went through the model.",
            "tokens_reused": "Tokens that did not have to.",
            "evictions": "Contexts whose keys and values were given up.",
        }
        held = {"slots": "Contexts whose keys and values are held.", "cache_bytes": "Bytes of the caches."}
        counters = {
            key: CounterMetricFamily(f"genlm_bytes_{key}", said, labels=["model"])
            for key, said in told.items()
        }
        gauges = {
            key: GaugeMetricFamily(f"genlm_bytes_{key}", said, labels=["model"]) for key, said in held.items()
        }
        for name, lm in self._catalog.ready():
            if isinstance(lm.llm, tuple):
                continue  # an ensemble is what its members do
            found = (lm.llm if isinstance(lm.llm, CachedLM) else cached(adopt(lm.llm))).statistics()
            for key, family in (counters | gauges).items():
                family.add_metric([name], getattr(found, key))
        yield from (counters | gauges).values()
