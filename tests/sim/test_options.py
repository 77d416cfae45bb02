from __future__ import annotations

import pytest

from extproc.core.policy import Vector
from extproc.sim.batching import Slots
from extproc.sim.options import PARAMETERS, SimOptions, options_from_url
from extproc.sim.timing import Timing

CAPACITY = Vector(tokens_per_second=2400, kv_tokens=262_144, concurrency=64)


def parse(url: str) -> SimOptions:
    return options_from_url(url, model="llama", max_model_len=8192, capacity=CAPACITY)


def test_a_bare_endpoint_takes_its_pools_figures_and_the_measured_times() -> None:
    assert parse("sim://") == SimOptions("llama", 8192, Slots(64, 262_144), timing=Timing())


def test_the_url_overrides_the_pool() -> None:
    options = parse("sim://?max_num_seqs=16&kv_tokens=5000&max_model_len=4096&seed=7&faults=true&output_tokens=20")
    assert options.slots == Slots(16, 5000)
    assert (options.max_model_len, options.seed, options.faults, options.output_tokens) == (4096, 7, True, 20)


def test_a_name_tells_endpoints_apart_and_means_nothing_else() -> None:
    assert parse("sim://short-2?seed=1") == parse("sim://?seed=1")


@pytest.mark.parametrize(
    ("query", "prefill_ms", "decode_ms"),
    [
        pytest.param("speed=10", 15.45, 7.16, id="speed"),
        pytest.param("decode_ms=20&prefill_ms_per_1k=50", 51.2, 20.0, id="own times"),
        pytest.param("tokens_per_second=240&max_num_seqs=16", 154.5, 66.67, id="from a capacity"),
        pytest.param("tokens_per_second=240&max_num_seqs=16&speed=2", 77.25, 33.33, id="from a capacity, sped up"),
    ],
)
def test_times_follow_the_url(query: str, prefill_ms: float, decode_ms: float) -> None:
    timing = parse(f"sim://?{query}").timing
    assert (timing.prefill_ms(1024), timing.decode_step_ms(64)) == pytest.approx((prefill_ms, decode_ms), rel=1e-3)


def test_there_is_no_more_context_than_kv_cache() -> None:
    assert parse("sim://?kv_tokens=1000").context_tokens == 1000


@pytest.mark.parametrize(
    ("url", "message"),
    [
        pytest.param("http://127.0.0.1:1", "does not begin with sim://", id="another scheme"),
        pytest.param("sim://?sped=10", "unknown parameter sped .* known: speed, seed", id="unknown parameter"),
        pytest.param("sim://?speed=1&speed=2", "given twice", id="twice"),
        pytest.param("sim://?speed=0", "speed=0 is not a number above 0", id="no speed"),
        pytest.param("sim://?speed=inf", "speed=inf is not a number above 0", id="endless speed"),
        pytest.param("sim://?speed=fast", "speed=fast is not a number above 0", id="speed in words"),
        pytest.param("sim://?max_num_seqs=0", "max_num_seqs=0 is not a whole number", id="no slots"),
        pytest.param("sim://?kv_tokens=1.5", "kv_tokens=1.5 is not a whole number", id="part of a token"),
        pytest.param("sim://?faults=yes", "faults=yes is neither true nor false", id="a flag of another kind"),
        pytest.param("sim://?decode_ms=1&tokens_per_second=1", "give one", id="two decode speeds"),
    ],
)
def test_a_wrong_url_is_refused_by_name(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(url)


def test_every_parameter_can_be_given() -> None:
    for name in PARAMETERS:
        assert parse(f"sim://?{name}={'true' if name in {'stops', 'faults'} else '2'}")
