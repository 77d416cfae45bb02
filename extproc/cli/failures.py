"""How a command fails: lines on stderr that begin with `tokenpool:`, exit code 1 (2 for wrong usage), no traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click


class Failure(click.ClickException):
    """Something the user can put right: the message says what is wrong, where and what to do. Never catch it."""

    def __init__(self, *lines: str, exit_code: int = 1) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        self.exit_code = exit_code  # type: ignore[misc] # ClickException declares a class variable; click reads either

    def show(self, file: IO[Any] | None = None) -> None:
        for line in self.lines:
            click.echo(f"tokenpool: {line}", file=file, err=True)


class OneLineGroup(click.Group):
    """A group whose errors, click's own included, are one line each."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401 - click's signature
    ) -> click.Context:
        with one_line_errors():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        with one_line_errors():
            return super().invoke(ctx)


@contextmanager
def one_line_errors() -> Iterator[None]:
    try:
        yield
    except (Failure, click.exceptions.NoArgsIsHelpError):
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "tokenpool"
        message = error.format_message().rstrip(".").replace("\n", " ")
        raise Failure(f"{message}; see `{command} --help`", exit_code=error.exit_code) from error
    except click.ClickException as error:
        raise Failure(error.format_message(), exit_code=error.exit_code) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # click ends quietly when the reader of a pipe has gone
        raise Failure(describe(error)) from error


def describe(error: OSError) -> str:
    """One line for a file or socket that could not be used."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
