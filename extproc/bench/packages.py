"""Files of installed packages: the benchmark's texts come from nowhere else."""

from __future__ import annotations

import gettext
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_OWN_SCRIPT = 0.3  # of a translation's characters; below, it is a name, a format or was never translated


class MissingPackage(Exception):  # noqa: N818 - it names the state of affairs
    """Raised where a package of the extra [bench] is not installed. Install it: pip install 'tokenpool[bench]'."""


def folder(package: str, inside: str) -> Path:
    """A folder of an installed distribution. Raises MissingPackage."""
    try:
        found = Path(str(distribution(package).locate_file(inside)))
    except PackageNotFoundError as error:
        raise MissingPackage(package) from error
    if not found.is_dir():
        raise MissingPackage(f"{package} (it has no {inside})")
    return found


def contents(root: Path, pattern: str) -> Iterator[str]:
    """The text of every file that matches, in the order of their names; what is not UTF-8 is left out."""
    for path in sorted(root.glob(pattern)):
        try:
            yield path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def translations(root: Path, pattern: str) -> str:
    """All messages that the catalogues translate into another script, one a line."""
    found: dict[str, None] = {}
    for path in sorted(root.glob(pattern)):
        with path.open("rb") as file:
            found.update(dict.fromkeys(_messages(gettext.GNUTranslations(file))))
    return "\n".join(found)


def _messages(catalogue: gettext.GNUTranslations) -> Iterator[str]:
    known: dict[object, str] = catalogue._catalog  # type: ignore[attr-defined]  # noqa: SLF001 - gettext has no way to list
    for source, text in known.items():
        if source and sum(character > "\u036f" for character in text) > _OWN_SCRIPT * len(text):
            yield text
