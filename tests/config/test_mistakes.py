"""What is said about a bad file: which mistakes, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from extproc.config import ConfigError, load, parse

HERE = Path(__file__).parent
BAD = HERE / "bad"
# One line a fixture, as it is printed. Each fixture has one mistake and is named after it.
EXPECTED = (BAD / "expected.txt").read_text().splitlines()


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "tokenpool.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize("line", EXPECTED, ids=lambda line: line.partition(".")[0])
def test_a_mistake_is_reported_with_file_line_key_and_remedy(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BAD)
    with pytest.raises(ConfigError) as caught:
        load(Path(line.partition(".")[0] + ".yaml"))
    assert str(caught.value) == line


def test_every_bad_file_has_its_expected_message() -> None:
    assert [line.partition(".")[0] for line in EXPECTED] == sorted(path.stem for path in BAD.glob("*.yaml"))


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(HERE / "five_mistakes.yaml")
    assert [(mistake.line, mistake.key) for mistake in caught.value.mistakes] == [
        (1, "redis"),
        (3, "models[0]"),
        (12, "entitlements[0].class"),
        (13, "entitlements[0].tokens_per_second"),
        (22, "entitlements[1].concurrency"),
    ]


def test_an_overcommitted_model_is_found_beside_an_unrelated_mistake() -> None:
    text = (BAD / "overcommitted.yaml").read_text()
    assert len(mistakes(text.replace("aliases: [alias]", "aliases: alias"))) == 1, "the model itself is in doubt"
    assert len(mistakes("fail: maybe\n" + text)) == 2


def test_a_bad_model_does_not_make_its_entitlements_strangers() -> None:
    assert len(mistakes((BAD / "empty_pools.yaml").read_text())) == 1


def test_what_stands_in_place_of_a_key_is_never_repeated() -> None:
    for name in ("plain_key_instead_of_hash", "plain_key_not_in_a_list", "keys_file_line"):
        with pytest.raises(ConfigError) as caught:
            load(BAD / f"{name}.yaml")
        assert "secret" not in str(caught.value)


def test_a_redis_password_is_never_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        load(BAD / "bad_redis_scheme.yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yaml", "cannot be read: No such file or directory"), ("", "cannot be read: Is a directory")],
    ids=["missing", "a-directory"],
)
def test_a_file_that_cannot_be_read_is_a_config_error(name: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: {reason}"


def test_a_file_in_another_encoding_is_a_config_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("models: []\n# Größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: is not UTF-8 text"):
        load(path)


def test_a_keys_file_must_be_a_plain_file() -> None:
    text = (BAD / "keys_file_missing.yaml").read_text().replace("nowhere.keys", "/dev/zero")
    assert mistakes(text) == [
        "tokenpool.yaml:17: entitlements[0].keys_file: must be a plain file of at most 16777216 bytes: '/dev/zero'"
    ]


def test_a_small_file_cannot_expand_without_end() -> None:
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (message,) = mistakes("\n".join(laughs))
    assert message.endswith("holds more than 200000 values once aliases are expanded")


def test_an_odd_key_does_not_break_a_message_into_lines() -> None:
    (message,) = mistakes('"a\\nb": 1\n' + (HERE / "good" / "minimal.yaml").read_text())
    assert message.startswith("tokenpool.yaml:1: ['a\\nb']: is not a known key")


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * 5000,
        'a: "\\U00110000"',
        "a: \0",
        "%YAML 9.9\n---\na: 1",
        "a: " + "9" * 5000,
        "? [a]\n: b",
        "{<<: 1}",
    ],
    ids=["deep", "no-such-character", "control-character", "version", "endless-number", "list-as-key", "merge-of-1"],
)
def test_hostile_yaml_is_only_ever_a_config_error(text: str) -> None:
    assert all(line.startswith("tokenpool.yaml:") for line in mistakes(text))
