from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.core.directory import Directory, api_key
from extproc.core.policy import Model, Policy, Pool, Vector
from tests.core.values import entitlement


def digest(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def named(name: str, *aliases: str) -> Model:
    return Model(name, (Pool("p", ("http://a",), 8192, Vector()),), aliases)


A = entitlement("a", key_hashes=(digest("sk-a"), digest("sk-both")))
B = entitlement("b", model="n", key_hashes=(digest("sk-both"),))
DIRECTORY = Directory(Policy((named("m", "alias", "other"), named("n")), (A, B)))


@pytest.mark.parametrize(
    ("name", "model"),
    [("m", "m"), ("alias", "m"), ("other", "m"), ("n", "n"), ("M", None), ("", None), ("m ", None)],
)
def test_models_are_found_by_name_and_by_alias(name: str, model: str | None) -> None:
    found = DIRECTORY.model(name)
    assert (found.name if found else None) == model


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param("sk-a", {"m": A}, id="a key of one model"),
        pytest.param("sk-both", {"m": A, "n": B}, id="a key of two models"),
        pytest.param("sk-c", None, id="a key nobody has"),
        pytest.param("", None, id="no key"),
        pytest.param(digest("sk-a"), None, id="a hash is no key"),
        pytest.param("schlüssel", None, id="not ASCII"),
        pytest.param("\udcff", None, id="bytes that are no UTF-8"),
    ],
)
def test_a_key_has_its_entitlements_by_model(key: str, expected: object) -> None:
    assert DIRECTORY.of_key(key) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("a", {"m": A}), ("b", {"n": B}), ("sk-a", None), ("", None)], ids=["a", "b", "key", "none"]
)
def test_an_identity_names_its_entitlement(name: str, expected: object) -> None:
    assert DIRECTORY.of_identity(name) == expected


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "key"),
    [
        pytest.param("Bearer sk-a", "", "sk-a", id="OpenAI's"),
        pytest.param("bEARER   sk-a ", "", "sk-a", id="any case, any space"),
        pytest.param("", " sk-x ", "sk-x", id="Anthropic's"),
        pytest.param("Bearer sk-a", "sk-x", "sk-a", id="both: OpenAI's"),
        pytest.param("Basic dXNlcjpw", "sk-x", "sk-x", id="another scheme is no key"),
        pytest.param("Basic dXNlcjpw", "", "", id="another scheme alone"),
        pytest.param("sk-a", "", "", id="a key without its scheme"),
        pytest.param("Bearer", "", "", id="a scheme without its key"),
        pytest.param("", "", "", id="none"),
    ],
)
def test_the_clients_key(authorization: str, x_api_key: str, key: str) -> None:
    assert api_key(authorization, x_api_key) == key


@given(st.text(), st.text())
def test_no_header_raises(authorization: str, x_api_key: str) -> None:
    api_key(authorization, x_api_key)


@given(st.binary())
def test_no_bytes_of_a_header_raise(key: bytes) -> None:
    DIRECTORY.of_key(key.decode("utf-8", "surrogateescape"))
