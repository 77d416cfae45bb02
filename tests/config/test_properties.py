"""Whatever the file holds, it is either taken or refused with mistakes that name the file."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.config import ConfigError, Mistake, parse, warnings
from extproc.core.policy import UNITS

FULL = (Path(__file__).parent.parent.parent / "tokenpool.yaml").read_text()
KEYS = (
    "models",
    "entitlements",
    "name",
    "pools",
    "capacity",
    "class",
    "keys",
    "burst",
    "identity",
    "<<",
    "redis",
    "cost",
)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=4),
    max_leaves=12,
)


def check(text: str) -> None:
    mistakes = outcome(text)
    assert mistakes is None or mistakes
    assert all(str(mistake).startswith("f.yaml:") and "\n" not in str(mistake) for mistake in mistakes or ())


def outcome(text: str) -> tuple[Mistake, ...] | None:
    try:
        warnings(parse(text, "f.yaml"))
    except ConfigError as error:
        return error.mistakes
    return None


@given(st.text())
def test_arbitrary_text(text: str) -> None:
    check(text)


@given(st.text(alphabet="&*!<>?|-:,[]{}#%@'\"\\ \n\tab0.~u"))
def test_arbitrary_punctuation(text: str) -> None:
    check(text)


@given(values)
def test_arbitrary_values(value: object) -> None:
    check(json.dumps(value))


@given(st.integers(0, len(FULL)), st.integers(0, 60), st.text(max_size=6))
@settings(max_examples=60)
def test_the_example_with_a_piece_replaced(start: int, length: int, replacement: str) -> None:
    check(FULL[:start] + replacement + FULL[start + length :])


@given(st.data())
@settings(max_examples=150)
def test_a_sound_structure_with_one_value_replaced(data: st.DataObject) -> None:
    pool: dict[str, object] = {"endpoints": ["sim://"], "max_model_len": 8192, "capacity": dict.fromkeys(UNITS, 4096)}
    entitlement: dict[str, object] = {"name": "e", "model": "m", "class": "elastic", "burst": {}}
    entitlement.update(dict.fromkeys(UNITS, 9))
    model: dict[str, object] = {"name": "m", "pools": {"p": pool}}
    file: dict[str, object] = {"models": [model], "entitlements": [entitlement]}
    place = data.draw(st.sampled_from([file, model, pool, entitlement]))
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(values)
    check(json.dumps(file))
