"""Nothing that users rely on is left out of the documentation, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from extproc import lua
from extproc.cli import main
from extproc.config.schema import json_schema
from extproc.core.policy import ServiceClass
from extproc.core.refusal import Reason
from extproc.envoy_config.local_replies import RULES, Rule
from tests.docs.page import PAGES, README, ROOT, everything

ARCHITECTURE = ROOT / "docs" / "architecture.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"
ADMISSION = ROOT / "docs" / "admission.md"
PACKAGE = ROOT / "extproc"
KEYS_IN_REDIS = sorted(set(re.findall(r"tp\d+:\{M\}:\w+", lua.source("admit"))))
COMMANDS = sorted(name for name, command in main.commands.items() if not command.hidden)

Rows = list[list[str]]


def rows(page: Path) -> Rows:
    """All rows of all tables."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_there_are_keys_to_look_for() -> None:
    assert len(KEYS_IN_REDIS) >= 6


@pytest.mark.parametrize("key", KEYS_IN_REDIS)
def test_every_key_in_redis_has_its_row(key: str) -> None:
    assert [row for row in rows(ARCHITECTURE) if row[0] == f"`{key}`"]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_in_the_table_of_errors(reason: Reason) -> None:
    assert [row for row in rows(README) if len(row) > 1 and row[1] == f"`{reason.value}`"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.refusal.status} {rule.refusal.reason.value}")
def test_every_refusal_of_envoys_has_its_status_in_the_table(rule: Rule) -> None:
    told = [" ".join(row) for row in rows(README) if len(row) > 1 and row[1] == f"`{rule.refusal.reason.value}`"]
    assert any(str(rule.refusal.status) in text for text in told)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_table_of_commands(command: str) -> None:
    assert [row for row in rows(README) if row[0] == f"`tokenpool {command}`"]


def test_the_table_of_commands_names_no_other() -> None:
    named = re.findall(r"^\| `tokenpool (\w+)` \|", README.read_text(), re.MULTILINE)
    assert sorted(named) == COMMANDS


@pytest.mark.parametrize("service_class", ServiceClass)
def test_every_class_is_explained(service_class: ServiceClass) -> None:
    for page in (README, ADMISSION):
        assert [row for row in rows(page) if row[0] == service_class.value and len(row) == 3]


def test_every_setting_has_its_row() -> None:
    root = json_schema()
    settings = {key for part in (root, *root["$defs"].values()) for key in part.get("properties", {})}
    assert settings <= {row[0].strip("`") for row in rows(CONFIGURATION)}


def test_every_module_is_in_the_table_of_modules() -> None:
    modules = {path.name + "/" if path.is_dir() else path.name for path in PACKAGE.iterdir() if known_module(path)}
    named = {name for row in rows(ARCHITECTURE) for name in re.findall(r"`([\w.]+/?)`", row[0])}
    explained = ARCHITECTURE.read_text()
    assert {name for name in modules - named if f"`{name}`" not in explained} == set()


def known_module(path: Path) -> bool:
    return (path.is_dir() and path.name != "__pycache__") or (path.suffix == ".py" and path.name != "__init__.py")


@pytest.mark.parametrize("name", re.findall(r"`((?:core|lua|envoy_config)/\w+\.\w+)`", ARCHITECTURE.read_text()))
def test_every_file_that_is_named_exists(name: str) -> None:
    assert (PACKAGE / name).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert [one for one in targets if "://" not in one and not (page.parent / one).exists()] == []


def test_every_endpoint_of_the_admin_server_is_told() -> None:
    paths = re.findall(r'add_get\("([^"]+)"', (PACKAGE / "admin" / "server.py").read_text())
    assert paths
    assert [path for path in paths if path not in everything()] == []


def test_every_header_of_refusals_is_told() -> None:
    assert {"x-tokenpool-reason", "retry-after", "retry-after-ms"} <= set(re.findall(r"`([\w-]+)`", README.read_text()))
