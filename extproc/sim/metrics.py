"""The server's counters, under vLLM's names, and as JSON for tests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

# vLLM's buckets, in seconds.
TTFT_BUCKETS: tuple[float, ...] = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)


@dataclass(slots=True)
class Counters:
    """What the engine did."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    finished: dict[str, int] = field(default_factory=lambda: {"stop": 0, "length": 0, "abort": 0})
    ttft_counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BUCKETS) + 1))
    ttft_seconds: float = 0.0

    def first_token(self, seconds: float) -> None:
        self.ttft_counts[bisect_left(TTFT_BUCKETS, seconds)] += 1
        self.ttft_seconds += seconds


@dataclass(slots=True)
class Totals:
    """What clients were told; a request is finished once its whole answer is written."""

    requests: int = 0
    finished: int = 0
    aborted: int = 0
    prompt_tokens: int = 0  # of finished requests, as in their usage
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    running: int
    waiting: int
    kv_tokens: int
    kv_usage: float  # 1.0 is full


class EngineCollector(Collector):
    """Reads the engine when Prometheus asks, so that serving a token touches no metric."""

    def __init__(self, model: str, counters: Counters, load: Callable[[], Load]) -> None:
        self._labels = {"engine": "0", "model_name": model}
        self._counters = counters
        self._load = load

    def collect(self) -> Iterable[Metric]:
        load = self._load()
        yield self._gauge("num_requests_running", "Requests in the batch.", load.running)
        yield self._gauge("num_requests_waiting", "Requests waiting to be processed.", load.waiting)
        yield self._gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", load.kv_usage)
        yield self._counter("num_preemptions", "Preemptions.", self._counters.preemptions)
        yield self._counter("prompt_tokens", "Prefill tokens processed.", self._counters.prompt_tokens)
        yield self._counter("generation_tokens", "Generation tokens processed.", self._counters.generation_tokens)
        yield self._finished()
        yield self._ttft()

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"vllm:{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"vllm:{name}", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), value)
        return family

    def _finished(self) -> Metric:
        labels = [*self._labels, "finished_reason"]
        family = CounterMetricFamily("vllm:request_success", "Requests processed.", labels=labels)
        for reason, count in self._counters.finished.items():
            family.add_metric([*self._labels.values(), reason], count)
        return family

    def _ttft(self) -> Metric:
        text = "Time to first token in seconds."
        family = HistogramMetricFamily("vllm:time_to_first_token_seconds", text, labels=list(self._labels))
        family.add_metric(list(self._labels.values()), list(self._buckets()), self._counters.ttft_seconds)
        return family

    def _buckets(self) -> Iterator[tuple[str, float]]:
        total = 0
        names = [*(str(limit) for limit in TTFT_BUCKETS), "+Inf"]
        for name, count in zip(names, self._counters.ttft_counts, strict=True):
            total += count
            yield name, total
