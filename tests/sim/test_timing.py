from __future__ import annotations

import pytest

from extproc.sim.timing import Curve, Timing, constant_decode, decode_for, linear_prefill


@pytest.mark.parametrize(
    ("x", "ms"),
    [
        pytest.param(0, 10, id="before the first point"),
        pytest.param(1, 10, id="the first point"),
        pytest.param(2, 15, id="between points"),
        pytest.param(3, 20, id="the last point"),
        pytest.param(5, 30, id="after the last point, with its slope"),
    ],
)
def test_a_curve_is_linear_between_its_points(x: float, ms: float) -> None:
    assert Curve(((1, 10.0), (3, 20.0))).at(x) == ms


@pytest.mark.parametrize(
    "points",
    [
        pytest.param((), id="no points"),
        pytest.param(((2, 1.0), (1, 2.0)), id="x descends"),
        pytest.param(((1, -1.0),), id="negative time"),
        pytest.param(((1, float("nan")),), id="no number"),
    ],
)
def test_a_curve_refuses_points_that_make_no_sense(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="curve"):
        Curve(points)


@pytest.mark.parametrize(("prompt_tokens", "ms"), [(0, 0.0), (512, 93.0), (1536, (154.5 + 274.2) / 2), (8192, 1549.8)])
def test_prefill_follows_the_measured_medians(prompt_tokens: int, ms: float) -> None:
    assert Timing().prefill_ms(prompt_tokens) == pytest.approx(ms)


@pytest.mark.parametrize(("batch", "ms"), [(0, 0.0), (1, 44.9), (16, 50.4), (64, 71.6)])
def test_a_decode_step_follows_the_measured_medians(batch: int, ms: float) -> None:
    assert Timing().decode_step_ms(batch) == pytest.approx(ms)


def test_the_chunks_of_a_prompt_add_up_to_its_prefill_time() -> None:
    timing = Timing()
    chunks = [timing.step_ms(0, 2048, read) for read in range(0, 8192, 2048)]
    assert sum(chunks) == pytest.approx(timing.prefill_ms(8192))


def test_a_mixed_step_takes_the_time_of_both_its_parts() -> None:
    timing = Timing(linear_prefill(100.0), constant_decode(20.0))
    assert timing.step_ms(decoding=4, new_tokens=500, context_tokens=0) == pytest.approx(70.0)


def test_sixteen_slots_at_240_tokens_a_second_are_15_a_second_each() -> None:
    assert 1000.0 / decode_for(240, 16).at(16) == pytest.approx(15.0)


def test_speed_divides_all_times() -> None:
    faster = Timing().faster(10.0)
    assert (faster.prefill_ms(512), faster.decode_step_ms(16)) == pytest.approx((9.3, 5.04))
