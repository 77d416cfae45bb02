"""The quick benchmark's requests, tokenized once; whatever needs the extra is skipped without it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from extproc.bench import asks
from extproc.bench.packages import MissingPackage
from extproc.bench.prompts import Prompts, tokenized
from extproc.bench.report import QUICK


@pytest.fixture(scope="session")
def prompts() -> Prompts:
    with or_skip():
        return tokenized(QUICK.kinds, QUICK.vocabularies, QUICK.requests, seed=0)


@pytest.fixture(scope="session")
def texts() -> None:
    with or_skip():
        asks.kinds()


@contextmanager
def or_skip() -> Iterator[None]:
    try:
        yield
    except MissingPackage as error:
        pytest.skip(f"{error} is not installed: pip install 'tokenpool[bench]'")
