"""The ledger's operations, one Lua file each; `records.lua` is put before every one of them."""

from importlib.resources import files

_PARTS = {  # of an operation too long for one file, in the order in which they build on one another
    "admit": ("pools", "requests", "retry", "room", "lending", "demand", "waiting"),
}


def source(operation: str) -> str:
    """The whole script of one operation: the shared records, its parts, then the operation itself."""
    here = files(__name__)
    parts = [here.joinpath("admitting", f"{part}.lua") for part in _PARTS.get(operation, ())]
    return "\n".join(file.read_text() for file in (here / "records.lua", *parts, here / f"{operation}.lua"))
