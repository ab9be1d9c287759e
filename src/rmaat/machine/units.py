"""Sizes in bytes, as people write them."""

import re

from rmaat.errors import UserError

UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

LARGEST_SIZE = 2**63

SIZE = "a size such as '2GiB' or '500 MB'"


def parse_bytes(name: str, text: str, forms: str = SIZE) -> int:
    """Return the bytes of a number with a unit such as '1.5GiB'.

    Raises `UserError` naming the setting `name` and the allowed `forms` if it is no such text.
    """
    units = {unit.lower(): size for unit, size in UNITS.items()}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]+)\s*", text)
    size = float(match[1]) * units.get(match[2].lower(), 0) if match else 0
    if not 1 <= size < LARGEST_SIZE:
        raise UserError(f"{name} '{text}' is not {forms}; units: {', '.join(UNITS)}")
    return int(size)


def mebibytes(size: int) -> str:
    """Write a number of bytes in MiB, with one decimal."""
    return f"{size / 2**20:,.1f}"
