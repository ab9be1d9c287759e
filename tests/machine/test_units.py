import pytest

from rmaat.errors import UserError
from rmaat.machine.units import mebibytes, parse_bytes


@pytest.mark.parametrize(("text", "size"), [("2GiB", 2**31), ("1.5 MB", 1_500_000), ("3kib", 3072), ("7B", 7)])
def test_sizes(text, size):
    assert parse_bytes("--limit", text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1GB", "1TiBs", "1e9", "100", "0GiB"])
def test_what_is_no_size(text):
    with pytest.raises(UserError, match="--limit"):
        parse_bytes("--limit", text)


def test_mebibytes():
    assert mebibytes(3 * 2**20 + 2**19) == "3.5"
