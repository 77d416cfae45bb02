"""The quick benchmark's requests, tokenized once."""

from __future__ import annotations

import pytest

from extproc.bench.packages import MissingPackage
from extproc.bench.prompts import Prompts, tokenized
from extproc.bench.report import QUICK


@pytest.fixture(scope="session")
def prompts() -> Prompts:
    try:
        return tokenized(QUICK.kinds, QUICK.vocabularies, QUICK.requests, seed=0)
    except MissingPackage as error:
        pytest.skip(f"{error} is not installed: pip install 'tokenpool[bench]'")
