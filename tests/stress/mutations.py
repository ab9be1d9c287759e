"""Damage to one file of a data set: to its bytes, its lines, its arrays or its columns."""

import io
import os
import random
import re
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tests.stress.samples import PACKERS, unpacked

Mutation = Callable[[bytes, random.Random], bytes]

BOMB_BYTES = 400 * 2**20
"""Size of the content of a decompression bomb."""


def bit(content: bytes, dice: random.Random) -> bytes:
    """Flip a bit."""
    changed = bytearray(content)
    changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def bits(content: bytes, dice: random.Random) -> bytes:
    """Flip up to 20 bits."""
    for _ in range(dice.randint(2, 20)):
        content = bit(content, dice)
    return content


def cut(content: bytes, dice: random.Random) -> bytes:
    """Cut the end off."""
    return content[: dice.randrange(len(content))]


def zeros(content: bytes, dice: random.Random) -> bytes:
    """Replace a chunk by NUL bytes."""
    start, stop = chunk(content, dice)
    return content[:start] + bytes(stop - start) + content[stop:]


def noise(content: bytes, dice: random.Random) -> bytes:
    """Replace a chunk by random bytes."""
    start, stop = chunk(content, dice)
    return content[:start] + dice.randbytes(stop - start) + content[stop:]


def insertion(content: bytes, dice: random.Random) -> bytes:
    """Insert random bytes, or one that means something."""
    start = dice.randrange(len(content) + 1)
    meant = [b"\0", b"\xff", b"\n", b"\r", b"\t", b'"', b",", b"\xef\xbb\xbf", b"\x1a", b"\\", b"{", b"]"]
    inserted = dice.choice([*meant, dice.randbytes(dice.randint(1, 40))])
    return content[:start] + inserted + content[start:]


def duplicate(content: bytes, dice: random.Random) -> bytes:
    """Repeat a chunk."""
    start, stop = chunk(content, dice)
    return content[:stop] + content[start:]


def deletion(content: bytes, dice: random.Random) -> bytes:
    """Delete a chunk."""
    start, stop = chunk(content, dice)
    return content[:start] + content[stop:]


def swap(content: bytes, dice: random.Random) -> bytes:
    """Swap two chunks that follow one another."""
    one, two, three = sorted(dice.randrange(len(content) + 1) for _ in range(3))
    return content[:one] + content[two:three] + content[one:two] + content[three:]


def chunk(content: bytes, dice: random.Random) -> tuple[int, int]:
    """Return start and stop of a random chunk."""
    start = dice.randrange(len(content))
    return start, min(len(content), start + dice.choice([1, 4, 16, 100, 1000]))


def empty(content: bytes, dice: random.Random) -> bytes:
    """Return nothing."""
    return b""


def twice(content: bytes, dice: random.Random) -> bytes:
    """Repeat the file."""
    return content + content


def foreign(content: bytes, dice: random.Random) -> bytes:
    """Return the beginning of another format."""
    heads = [b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"PAR1", b"\x80\x04", b"\x93NUMPY"]
    return dice.choice(heads) + dice.choice([b"", content])


DAMAGES: tuple[Mutation, ...] = (bit, bits, cut, zeros, noise)
"""Mutations that a checksum reveals: the data set is refused or unchanged."""

BYTES: tuple[Mutation, ...] = (*DAMAGES, insertion, duplicate, deletion, swap, empty, twice, foreign)


def huge_number(content: bytes, dice: random.Random) -> bytes:
    """Replace a number by one that is too large, or no number."""
    numbers = list(re.finditer(rb"[0-9]+", content))
    if not numbers:
        return bit(content, dice)
    values = [b"9" * 25, b"9" * 5000, b"1e999", b"-1", b"NaN", b"Infinity", b"-0.0", b"1.5", b"0x1", b"null", b"true"]
    match = dice.choice(numbers)
    return content[: match.start()] + dice.choice([*values, "\u0663".encode(), b"1_0", b'""']) + content[match.end() :]


def encoding(content: bytes, dice: random.Random) -> bytes:
    """Write the text in another encoding."""
    return content.decode(errors="replace").encode(dice.choice(["utf-16", "latin1", "utf-32", "cp037"]), "replace")


def columns(content: bytes, dice: random.Random) -> bytes:
    """Swap or drop two columns, in one line or in all."""
    separator = dice.choice([b"\t", b",", b" "])
    lines = content.split(b"\n")
    changed = dice.choice([range(len(lines)), [dice.randrange(len(lines))]])
    for i in changed:
        fields = lines[i].split(separator)
        fields[0], fields[-1] = fields[-1], fields[0]
        lines[i] = separator.join(fields)
    return b"\n".join(lines)


def long_line(content: bytes, dice: random.Random) -> bytes:
    """Add a line of some megabytes, or make one of a line's texts as long."""
    filler = dice.choice([b"a", b"\t", b'"', b"[", b" ", b"0", b"\\", b"(", "\u20ac".encode()])
    long = filler * dice.choice([10**5, 5 * 10**6])
    start = dice.randrange(len(content) + 1)
    return dice.choice([content + long, content[:start] + long + content[start:]])


def deep(content: bytes, dice: random.Random) -> bytes:
    """Add JSON or an expression that is nested very deep."""
    depth = dice.choice([500, 10**5])
    lines = [
        b"[" * depth,
        b'{"text": ' * depth,
        b'{"text": "a", "label": ' + b"[" * depth + b"]" * depth + b"}",
        b"[MAX " * depth + b"1" + b" ]" * depth + b"\t1",
    ]
    return content + dice.choice(lines) + b"\n"


def lines_shuffled(content: bytes, dice: random.Random) -> bytes:
    """Delete, repeat or move lines."""
    lines = content.split(b"\n")
    return b"\n".join(dice.choices(lines, k=len(lines)))


def line_ends(content: bytes, dice: random.Random) -> bytes:
    """Change the ends of lines."""
    return content.replace(b"\n", dice.choice([b"\r\n", b"\r", b"\n\n", b"\x0b", b"\xe2\x80\xa8"]))


TEXTS: tuple[Mutation, ...] = (
    huge_number,
    encoding,
    columns,
    long_line,
    deep,
    lines_shuffled,
    line_ends,
)
"""Mutations of lines of text."""


def arrays(content: bytes, dice: random.Random) -> bytes:
    """Change one array of an .npz file to another type, shape or value."""
    with np.load(io.BytesIO(content)) as file:
        stored = {name: file[name] for name in file.files}
    name = dice.choice(sorted(stored))
    array = stored.pop(name)
    kind = dice.choice(["object", "dtype", "shape", "value", "absent", "empty", "scalar", "fortran", "short"])
    if kind == "object":
        stored[name] = np.array([{"a": 1}] * max(1, array.size // 1000), object)
    elif kind == "dtype":
        stored[name] = array.astype(dice.choice(["float32", "int64", "bool", "U5", "complex64", "u8", ">i2"]))
    elif kind == "shape":
        stored[name] = dice.choice([array.reshape(-1), array[None], array.T, array.reshape(-1, 1)])
    elif kind == "value" and array.size and array.dtype.kind in "iu":
        changed = array.copy()
        changed.reshape(-1)[dice.randrange(array.size)] = dice.choice([0, 1, np.iinfo(array.dtype).max])
        stored[name] = changed
    elif kind in ("empty", "short") and array.ndim:
        stored[name] = array[: 0 if kind == "empty" else len(array) // 2]
    elif kind == "scalar":
        stored[name] = np.array(dice.choice([0, -1, "text", 2.5]))
    elif kind == "fortran":
        stored[name] = np.asfortranarray(array)
    out = io.BytesIO()
    dice.choice([np.savez, np.savez_compressed])(out, **stored)
    return out.getvalue()


def header(content: bytes, dice: random.Random) -> bytes:
    """Write an .npz file whose arrays claim another shape or type than their bytes have."""
    with np.load(io.BytesIO(content)) as file:
        target = dice.choice(sorted(file.files))
    shapes = ["(1000000000000,)", "(-1,)", "(1000000000,)", "(3.5,)", "()", "(" * 150 + ")" * 150, "(1,)", "(24, 8)"]
    types = ["|u1", "|O", "<f8", "<U1000000000", "|V0", "<M8[s]", "[('a', '<i4')]", "nonsense"]
    text = f"{{'descr': '{dice.choice(types)}', 'fortran_order': False, 'shape': {dice.choice(shapes)}, }}\n"
    # Write the members by hand, because NumPy writes no false header.
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            member = source.read(name)
            if name == f"{target}.npy":
                member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + member[128:]
            archive.writestr(name, member)
    return out.getvalue()


def table(content: bytes, dice: random.Random) -> bytes:
    """Change one column of a Parquet file to another type or name."""
    stored = pq.read_table(io.BytesIO(content))
    index = dice.randrange(stored.num_columns)
    name, rows = stored.column_names[index], stored.num_rows
    others: list[object] = [None, 1.5, float("nan"), 10**18, True, b"\xff\xfe", "", "a\0b", [1], {"a": 1}, "\u20ac" * 9]
    value = dice.choice(others)
    kind = dice.choice(["all", "one", "name", "absent", "empty", "binary", "dictionary"])
    values = stored.column(index).to_pylist()
    if kind == "all":
        stored = stored.set_column(index, name, pa.array([value] * rows))
    elif kind == "one":
        values[dice.randrange(rows)] = None
        stored = stored.set_column(index, name, pa.array(values))
    elif kind == "name":
        names = list(stored.column_names)
        names[index] = dice.choice(["other", names[0], ""])
        stored = stored.rename_columns(names)
    elif kind == "absent":
        stored = stored.remove_column(index)
    elif kind == "empty":
        stored = stored.slice(0, 0)
    elif kind == "binary":
        raw = [str(value).encode("latin1", "replace") for value in values]
        stored = stored.set_column(index, name, pa.array(raw, pa.binary()))
    elif kind == "dictionary":
        stored = stored.set_column(index, name, pa.array(values).dictionary_encode())
    out = io.BytesIO()
    pq.write_table(stored, out, row_group_size=dice.choice([5, 1000]))
    return out.getvalue()


@cache
def packed_bomb(suffix: str, head: bytes, filler: bytes) -> bytes:
    """Return a packed file that holds `head` and then hundreds of megabytes of a filler."""
    # Lines take time, which grows with their number.
    size = BOMB_BYTES // (1000 if filler == b"\n" else 1)
    return PACKERS[suffix](head + filler * size)


@cache
def array_bomb(names: tuple[str, ...]) -> bytes:
    """Return an .npz file whose first array has hundreds of megabytes of zeros."""
    out = io.BytesIO()
    large = {names[0]: np.zeros(BOMB_BYTES, np.uint8)}
    np.savez_compressed(out, **large, **{name: np.zeros(1, np.uint8) for name in names[1:]})
    return out.getvalue()


@cache
def picture_bomb() -> bytes:
    """Return a PNG file of 12,000 x 12,000 pixels in colour."""
    out = io.BytesIO()
    Image.new("RGBA", (12_000, 12_000)).save(out, "PNG", compress_level=1)
    return out.getvalue()


@cache
def table_bomb(names: tuple[str, ...]) -> bytes:
    """Return a Parquet file of two hundred rows with the same megabyte of text."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(200, np.int32)), pa.array(["a" * 2**20]))
    labels = pa.array([str(i % 2) for i in range(200)])
    out = io.BytesIO()
    pq.write_table(
        pa.table({name: labels if name == "label" else texts for name in names}),
        out,
        dictionary_pagesize_limit=2**24,
        store_schema=False,
    )
    return out.getvalue()


def bomb(content: bytes, path: Path, dice: random.Random) -> bytes:
    """Return a small file that is large once it is unpacked."""
    if path.suffix in PACKERS:
        head = b'{"text": "' if ".jsonl" in path.suffixes else b"text\tlabel\n"
        return packed_bomb(path.suffix, dice.choice([b"", head]), dice.choice([b"\0", b"\n"]))
    if path.suffix == ".npz":
        with np.load(io.BytesIO(content)) as file:
            return array_bomb(tuple(file.files))
    if path.suffix == ".parquet":
        return table_bomb(tuple(pq.read_schema(io.BytesIO(content)).names))
    return picture_bomb()


def another_kind(path: Path, dice: random.Random) -> str:
    """Put something that is no file, or no content, in place of a file; return what."""
    kind = dice.choice(["gone", "folder", "FIFO", "loop", "device", "unreadable"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "unreadable":
        path.symlink_to("/proc/self/mem")
    return kind


def mutate(path: Path, dice: random.Random) -> str:
    """Mutate a file; return how, in words that begin with "damage" if a checksum reveals it."""
    content = path.read_bytes()
    kinds = {"bytes": 10, "kind": 1}
    text = any(suffix in (".jsonl", ".csv", ".tsv", ".txt", ".npy", ".json") for suffix in path.suffixes)
    bombs = path.suffix in (*PACKERS, ".npz", ".parquet", ".png")
    kinds |= {"text": 10} if text else {}
    kinds |= {"inner bytes": 5} if path.suffix in PACKERS else {}
    kinds |= {".npz": 8} if path.suffix == ".npz" else {}
    kinds |= {".parquet": 8} if path.suffix == ".parquet" else {}
    kinds |= {"bomb": 0.3} if bombs else {}
    kind = dice.choices(list(kinds), list(kinds.values()))[0]
    if kind == "kind":
        return another_kind(path, dice)
    if kind == "bomb":
        changed, what = bomb(content, path, dice), "bomb"
    elif kind in ("text", "inner bytes"):
        mutation = dice.choice(TEXTS if kind == "text" else BYTES)
        changed, what = mutation(unpacked(path) or b"\0", dice), f"content, {mutation.__name__}"
        changed = PACKERS.get(path.suffix, bytes)(changed)
    else:
        choices = {".npz": (arrays, header), ".parquet": (table,)}.get(kind, BYTES)
        mutation = dice.choice(choices)
        changed = mutation(content or b"\0", dice)
        what = f"damage, {mutation.__name__}" if mutation in DAMAGES else mutation.__name__
    path.write_bytes(changed)
    return what
