from __future__ import annotations

import hashlib
import json
import re

import pytest
from click.testing import CliRunner, Result

from extproc.cli import main


def run(*arguments: str, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(main, ["key", *arguments], input=stdin)


def test_a_new_key_is_printed_with_its_hash() -> None:
    key, key_hash = run().stdout.splitlines()
    assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", key)
    assert key_hash == "sha256:" + hashlib.sha256(key.encode()).hexdigest()


def test_two_keys_differ() -> None:
    assert run().stdout != run().stdout


def test_json_has_key_and_hash() -> None:
    made = json.loads(run("--json").stdout)
    assert made["hash"] == "sha256:" + hashlib.sha256(made["key"].encode()).hexdigest()


@pytest.mark.parametrize("stdin", ["test", "test\n", "  test\r\n"], ids=["bare", "line", "spaces"])
def test_a_key_on_standard_input_is_hashed(stdin: str) -> None:
    expected = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert run("--hash", stdin=stdin).stdout == f"{expected}\n"


@pytest.mark.parametrize(
    ("stdin", "complaint"),
    [
        ("", "standard input is empty"),
        (" \n", "standard input is empty"),
        ("sha256:00", "a hash already"),
        ("sk-a sk-b", "more than one word"),
        (b"\xff\xfe", "plain ASCII"),
    ],
    ids=["empty", "blank", "hash", "two", "bytes"],
)
def test_what_is_no_key_is_refused(stdin: str | bytes, complaint: str) -> None:
    result = run("--hash", stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    assert complaint in result.stderr


def test_a_key_is_never_an_argument() -> None:
    assert run("--hash", "sk-secret").exit_code == 2
