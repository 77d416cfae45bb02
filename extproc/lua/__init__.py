"""The ledger's operations, one Lua file each; `records.lua` is put before every one of them."""

from importlib.resources import files


def source(operation: str) -> str:
    """The whole script of one operation: the shared records, then the operation itself."""
    here = files(__name__)
    return here.joinpath("records.lua").read_text() + here.joinpath(f"{operation}.lua").read_text()
