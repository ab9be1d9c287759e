"""Sizes as people write them."""

import re

from rmaat.errors import UserError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_bytes(name: str, text: str) -> int:
    """'2GiB', '500 MB' or '1000000' as a number of bytes; raises `UserError`, naming `name`, for anything else."""
    units = {unit.lower(): size for unit, size in UNITS.items()}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].lower() not in units:
        raise UserError(f"{name} '{text}' is not a size; write one such as 2GiB, 500MB or a number of bytes")
    size = int(float(match[1]) * units[match[2].lower()])
    if size < 1:
        raise UserError(f"{name} must be at least one byte, not '{text}'")
    return size


def mebibytes(size: int) -> str:
    """A number of bytes in MiB, with one decimal."""
    return f"{size / 2**20:,.1f}"
