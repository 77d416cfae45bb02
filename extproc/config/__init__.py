"""The configuration file to frozen values, or every mistake in it at once with file, line and key."""

from __future__ import annotations

from pathlib import Path

from extproc.config import checks, conversion, keys, reading
from extproc.config.advice import warnings
from extproc.config.mistakes import ConfigError, Mistake, Problem, dotted
from extproc.config.validation import validate
from extproc.core.settings import Settings

__all__ = ["ConfigError", "Mistake", "load", "parse", "warnings"]


def load(path: Path) -> Settings:
    """Raises ConfigError, also where the file cannot be read."""
    source = str(path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError((Mistake(source, None, "", f"cannot be read: {reason}"),)) from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((Mistake(source, line, "", "is not UTF-8 text; save it as UTF-8"),)) from error
    return parse(text, source)


def parse(text: str, source: str) -> Settings:
    """`source` names the file in messages, and key files are looked for beside it. Raises ConfigError."""
    document = reading.read(text)
    if isinstance(document, Problem):
        raise ConfigError((Mistake(source, document.line, dotted(document.path), document.message),))
    valid, unfit = validate(document.data)
    found_keys, unread = keys.collect(valid.entitlements, Path(source).parent)
    crossed = checks.run(checks.Found(valid, found_keys))
    unclear = {problem.path for problem in document.problems}  # their values are gone: no second complaint
    problems = [*document.problems, *(problem for problem in unfit if problem.path not in unclear), *unread, *crossed]
    if problems or valid.file is None:
        raise ConfigError(_mistakes(problems, document, source))
    return conversion.settings(valid.file, found_keys)


def _mistakes(problems: list[Problem], document: reading.Document, source: str) -> tuple[Mistake, ...]:
    mistakes = [_mistake(problem, document, source) for problem in problems]
    return tuple(sorted(mistakes, key=lambda mistake: (mistake.source != source, mistake.source, mistake.line or 0)))


def _mistake(problem: Problem, document: reading.Document, source: str) -> Mistake:
    line = document.line(problem.path) if problem.line is None else problem.line
    return Mistake(problem.source or source, line, dotted(problem.path), problem.message)
