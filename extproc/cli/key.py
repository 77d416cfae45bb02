"""`tokenpool key`: API keys, and the hashes of them that the configuration holds."""

from __future__ import annotations

import hashlib
import json
import secrets
import sys

import click

from extproc.cli.failures import Failure

KEY_PREFIX = "sk-"  # what OpenAI's clients and secret scanners expect a key to begin with
RANDOM_BYTES = 32
HASH_PREFIX = "sha256:"


@click.command(short_help="Make an API key, or hash one.")
@click.option("--hash", "hash_only", is_flag=True, help="Read a key from standard input and print only its hash.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def key(hash_only: bool, as_json: bool) -> None:
    """Make an API key, or hash one.

    Prints a new random key (once: it is stored nowhere) and its hash. The key goes to the tenant,
    the hash under `keys:` of an entitlement.

    \b
    Examples:
      tokenpool key
      printf %s "$KEY" | tokenpool key --hash
    """  # noqa: D301 - click wants the character
    if hash_only:
        answer = {"hash": hash_of(read_key())}
    else:
        made = KEY_PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        answer = {"key": made, "hash": hash_of(made)}
    click.echo(json.dumps(answer) if as_json else "\n".join(answer.values()))
    if not hash_only and not as_json:
        click.echo("The key is shown once. The second line goes under `keys:` of an entitlement.", err=True)


def hash_of(api_key: str) -> str:
    return HASH_PREFIX + hashlib.sha256(api_key.encode()).hexdigest()


def read_key() -> str:
    """From standard input, never from an argument: the process list and the shell's history are public."""
    if sys.stdin.isatty():
        text: str = click.prompt("Key", hide_input=True, err=True)
    else:
        text = sys.stdin.buffer.read().decode(errors="replace")
    api_key = text.strip()
    if not api_key.isascii():
        raise Failure("standard input holds bytes that no HTTP header carries; a key is plain ASCII")
    if not api_key:
        raise Failure('standard input is empty; give the key as in: printf %s "$KEY" | tokenpool key --hash')
    if api_key.startswith(HASH_PREFIX):
        raise Failure("standard input holds a hash already; give the key itself")
    if len(api_key.split()) > 1:
        raise Failure("standard input holds more than one word; give one key")
    return api_key
