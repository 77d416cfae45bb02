"""The configuration's page in docs/ says what the schema says."""

from __future__ import annotations

from pathlib import Path

from extproc.config.reference import reference
from extproc.config.schema import json_schema

PAGE = Path(__file__).parent.parent.parent / "docs" / "configuration.md"


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == reference(), "run: python -m extproc.config.reference > docs/configuration.md"


def test_every_key_of_the_schema_has_its_row() -> None:
    root = json_schema()
    mappings = [root, *root["$defs"].values()]
    keys = {key for mapping in mappings for key in mapping.get("properties", {})}
    assert len(keys) > 40
    assert not [key for key in keys if f"\n| `{key}` |" not in reference()]
