"""What the supervisor serves: the metrics that its workers wrote to files, and gauges of the shared state."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

_KINDS = ("counter", "histogram")  # of worker metrics; gauges come from the shared state


class MetricsDirectory:
    """The files through which worker processes hand their metrics to the supervisor.

    prometheus_client keeps two files a process. A dead worker's counts must stay, or every sum would drop, so `retire`
    adds its files to those of all dead workers: the directory holds at most one pair more than there are workers.
    """

    def __init__(self, path: Path) -> None:
        """Takes the directory over: what an earlier supervisor's workers left in it is removed."""
        self._path = path
        self._lock = threading.Lock()  # a scrape must not see a dead worker's counts twice, or not at all
        path.mkdir(parents=True, exist_ok=True)
        for leftover in path.glob("*.db"):
            leftover.unlink()

    @property
    def environ(self) -> dict[str, str]:
        """What a worker must have in its environment before it imports prometheus_client."""
        return {"PROMETHEUS_MULTIPROC_DIR": str(self._path)}

    def retire(self, pid: int) -> None:
        """Call when a worker has exited."""
        with self._lock:
            for kind in _KINDS:
                file = self._path / f"{kind}_{pid}.db"
                if file.exists():
                    _add(file, self._path / f"{kind}_retired.db")
                    file.unlink()

    def registry(self, state: Mapping[str, Any] | None) -> CollectorRegistry:
        """What one scrape sees. `state` is the document of /api/v1/state, None where it cannot be had."""
        registry = CollectorRegistry()
        registry.register(_WorkerCollector(self._path, self._lock))
        registry.register(StateCollector(state))
        return registry


class _WorkerCollector(Collector):
    def __init__(self, path: Path, lock: threading.Lock) -> None:
        self._path = path
        self._lock = lock

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            # A worker that is just starting has created its file, but not yet sized it; reading that fails.
            files = [str(file) for file in sorted(self._path.glob("*.db")) if file.stat().st_size > 0]
            return list(MultiProcessCollector.merge(files))  # type: ignore[no-untyped-call]


def _add(source: Path, target: Path) -> None:
    if source.stat().st_size == 0:
        return
    sums = MmapedDict(str(target))  # type: ignore[no-untyped-call]
    try:
        for key, value, _timestamp, _position in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]
    finally:
        sums.close()  # type: ignore[no-untyped-call]


class StateCollector(Collector):
    """Gauges of the state document, so that metrics and /api/v1/state never disagree."""

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Without a document only `tokenpool_degraded` is known, and it is 1."""
        models: Mapping[str, Any] = self._state["models"] if self._state else {}
        yield from _pool_gauges(models)
        yield from _entitlement_gauges(models)
        yield from _model_gauges(models)
        degraded = self._state is None or bool(self._state["degraded"])
        yield GaugeMetricFamily(
            "tokenpool_degraded", "1 while the shared state cannot be reached or is decided without.", int(degraded)
        )


def _pool_gauges(models: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ("model", "pool", "unit")
    in_use = GaugeMetricFamily("tokenpool_in_use", "What leases hold of a pool.", labels=labels)
    capacity = GaugeMetricFamily("tokenpool_capacity", "What a pool's live servers give.", labels=labels)
    servers = GaugeMetricFamily("tokenpool_servers", "Servers of a pool that answer.", labels=labels[:2])
    desired = GaugeMetricFamily("tokenpool_desired_replicas", "Servers that a pool should have.", labels=labels[:2])
    for model, of_model in models.items():
        for pool, of_pool in of_model["pools"].items():
            _add_vector(in_use, (model, pool), of_pool["in_use"])
            _add_vector(capacity, (model, pool), of_pool["capacity"])
            servers.add_metric((model, pool), of_pool["servers"])
            if of_pool["desired"] is not None:
                desired.add_metric((model, pool), of_pool["desired"])
    yield from (in_use, capacity, servers, desired)


def _entitlement_gauges(models: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ("model", "entitlement", "unit")
    in_use = GaugeMetricFamily("tokenpool_entitlement_in_use", "What leases hold of an entitlement.", labels=labels)
    share = GaugeMetricFamily("tokenpool_share", "What an entitlement may use while all want more.", labels=labels)
    cap = GaugeMetricFamily("tokenpool_cap", "The most that an entitlement may use at present.", labels=labels)
    weight = GaugeMetricFamily("tokenpool_weight", "What an entitlement weighs when shares are set.", labels=labels[:2])
    waiting = GaugeMetricFamily("tokenpool_waiting", "Requests that wait for room.", labels=labels[:2])
    debt = GaugeMetricFamily("tokenpool_debt", "Recent shortfall against the base, -1 to 1.", labels=labels[:2])
    for model, of_model in models.items():
        for entitlement, of_entitlement in of_model["entitlements"].items():
            _add_vector(in_use, (model, entitlement), of_entitlement["in_use"])
            _add_vector(share, (model, entitlement), of_entitlement["share"])
            _add_vector(cap, (model, entitlement), of_entitlement["cap"])
            debt.add_metric((model, entitlement), of_entitlement["debt"])
            weight.add_metric((model, entitlement), of_entitlement["weight"])
            waiting.add_metric((model, entitlement), of_entitlement["waiting"])
    yield from (in_use, share, cap, debt, weight, waiting)


def _model_gauges(models: Mapping[str, Any]) -> Iterator[Metric]:
    leases = GaugeMetricFamily("tokenpool_leases", "Requests admitted and not yet settled.", labels=("model",))
    ratio = GaugeMetricFamily(
        "tokenpool_bytes_per_token", "The learned ratio of text bytes to prompt tokens.", labels=("model", "category")
    )
    for model, of_model in models.items():
        leases.add_metric((model,), of_model["leases"])
        for category, bytes_per_token in of_model["bytes_per_token"].items():
            ratio.add_metric((model, category), bytes_per_token)
    yield from (leases, ratio)


def _add_vector(gauge: GaugeMetricFamily, labels: tuple[str, ...], vector: Mapping[str, float]) -> None:
    for unit, value in vector.items():
        gauge.add_metric((*labels, unit), value)
