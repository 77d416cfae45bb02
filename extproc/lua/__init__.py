"""The ledger's operations, one Lua file each; `records.lua` is put before every one of them."""

from importlib.resources import files

_PARTS = {  # of an operation too long for one file: their folder, and the order in which they build on one another
    "admit": ("admitting", ("pools", "requests", "retry", "room", "lending", "demand", "waiting")),
    "settle": ("settling", ("averages", "ratios", "outputs")),
}


def source(operation: str) -> str:
    """The whole script of one operation: the shared records, its parts, then the operation itself."""
    here = files(__name__)
    folder, names = _PARTS.get(operation, ("", ()))
    parts = [here.joinpath(folder, f"{name}.lua") for name in names]
    return "\n".join(file.read_text() for file in (here / "records.lua", *parts, here / f"{operation}.lua"))
