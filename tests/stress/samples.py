"""Small valid data of every format that the tasks read, for the stress program of data."""

import csv
import gzip
import io
import json
import lzma
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from rmaat.tasks import Task, task_of
from rmaat.tasks.base import Counts, GeneratedTask
from rmaat.tasks.generate import generate
from rmaat.tasks.image_files import IDX_FILES
from rmaat.tasks.listops import ListOps
from rmaat.tasks.options import FilesOptions

SHARED = Path(__file__).parents[3] / "shared" / "data"
"""Compact files of real data, which only some machines have."""

Example = tuple[tuple[bytes, ...], str]
"""The texts of a row in UTF-8, or its ids, and the name of its label."""

Row = dict[str, Any]

TRAIN, TEST = 24, 12
"""Rows of the samples."""


@dataclass(frozen=True)
class Sample:
    """Valid files of one format.

    Attributes:
        write: makes the files in an empty folder.
        task: returns the task that reads them; may raise `UserError`.
        mistake: returns what is wrong with built examples, by another reading of the files.
        skipped: names of files that no task reads.
    """

    write: Callable[[Path], None]
    task: Callable[[Path], Task]
    mistake: Callable[[Path, Sequence[Example]], str | None] = lambda folder, examples: None
    skipped: tuple[str, ...] = (".lock",)


def rows_of(part: str, count: int, pair: bool) -> list[Row]:
    """Return labelled rows, some with quotes, commas and characters of several bytes."""
    texts = [f'{part} {i}, "käse" \u20ac' if i % 3 else f"{part} {i}" for i in range(count)]
    labels = [("no", "yes", "maybe")[i % 3] if pair else i % 3 for i in range(count)]
    second = [{"other": f"and {i}"} if pair else {} for i in range(count)]
    return [{"text": text, **other, "label": label} for text, other, label in zip(texts, second, labels, strict=True)]


def to_jsonl(rows: Sequence[Row]) -> bytes:
    """Return the rows as JSON Lines."""
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def to_csv(rows: Sequence[Row]) -> bytes:
    """Return the rows as CSV."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def to_tsv(rows: Sequence[Row]) -> bytes:
    """Return the rows as TSV."""
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    return "".join(f"{line}\n" for line in lines).encode()


def to_parquet(rows: Sequence[Row]) -> bytes:
    """Return the rows as Parquet."""
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), out)
    return out.getvalue()


WRITERS = {".jsonl": to_jsonl, ".csv": to_csv, ".tsv": to_tsv, ".parquet": to_parquet}

PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, 1),
    ".xz": lambda content: lzma.compress(content, preset=0),
}

UNPACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
}


def unpacked(path: Path) -> bytes:
    """Return the content of a file, decompressed."""
    return UNPACKERS.get(path.suffix, bytes)(path.read_bytes())


def records(path: Path) -> list[Row]:
    """Return the rows of a file by the simplest reading of its format."""
    kind = path.suffixes[0]
    if kind == ".parquet":
        rows: list[Row] = pq.read_table(path).to_pylist()
        return rows
    text = unpacked(path).decode("utf-8-sig")
    lines = text.replace("\r\n", "\n").split("\n")
    if kind == ".jsonl":
        return [json.loads(line) for line in lines if line.strip()]
    if kind == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    header = lines[0].rstrip("\r").split("\t")
    return [dict(zip(header, line.rstrip("\r").split("\t"), strict=True)) for line in lines[1:] if line.rstrip("\r")]


def label_text(label: object) -> str:
    """Return the text of a label: whole numbers without a point, truth values in lower case."""
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float):
        return str(int(label))
    whole, point, zeros = str(label).partition(".")
    return str(int(whole)) if point and zeros and not zeros.strip("0") and len(whole) < 20 else str(label)


def no_such_rows(paths: Sequence[Path], columns: Sequence[str], examples: Sequence[Example]) -> str | None:
    """Return the first example that is not a row of the files."""
    rows: Counter[Example] = Counter()
    for path in paths:
        for row in records(path):
            rows[tuple(row[column].encode() for column in columns), label_text(row["label"])] += 1
    wrong = Counter(examples) - rows
    return f"{next(iter(wrong))!r:.300} is no row of the files" if wrong else None


def user_files(suffix: str, pair: bool = False, validation: bool = False, tokenizer: bool = False) -> Sample:
    """Return a sample of the task files."""
    parts = ("train", *(["validation"] if validation else []), "test")
    columns = ("text", "other") if pair else ("text",)

    def write(folder: Path) -> None:
        for part in parts:
            path = folder / f"{part}{suffix}"
            content = WRITERS[path.suffixes[0]](rows_of(part, TRAIN if part == "train" else TEST, pair))
            path.write_bytes(PACKERS.get(path.suffix, bytes)(content))
        if tokenizer:
            save_tokenizer(folder / "tokenizer")

    def task(folder: Path) -> Task:
        options = FilesOptions(
            **{f"{part}_file": str(folder / f"{part}{suffix}") for part in parts},
            other_text_column="other" if pair else None,
            tokenizer=str(folder / "tokenizer") if tokenizer else None,
        )
        return task_of("files", options)

    def mistake(folder: Path, examples: Sequence[Example]) -> str | None:
        if tokenizer:
            return None
        return no_such_rows([folder / f"{part}{suffix}" for part in parts], columns, examples)

    return Sample(write, task, mistake)


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer of some words into a new folder."""
    words = ["[UNK]", "train", "test", *map(str, range(300))]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)


def generated(name: str, options: Mapping[str, int] | None = None) -> Sample:
    """Return a sample of a generated task, without its settings."""

    def task(folder: Path) -> Task:
        return task_of(name).with_options(options or {})

    def write(folder: Path) -> None:
        made = task(folder)
        assert isinstance(made, GeneratedTask)
        generate(made, folder, 0, Counts(TRAIN, TEST, TEST))

    def mistake(folder: Path, examples: Sequence[Example]) -> str | None:
        return wrong_value(examples) if isinstance(task(folder), ListOps) else None

    return Sample(write, task, mistake, (".lock", "settings.json"))


OPERATORS: Mapping[str, Callable[[list[int]], int]] = {
    "[MIN": min,
    "[MAX": max,
    "[MED": lambda values: int(np.median(values)),
    "[SM": lambda values: sum(values) % 10,
}


def wrong_value(examples: Sequence[Example]) -> str | None:
    """Return the first expression whose label is not its value."""
    symbols = [*"0123456789", *OPERATORS, "]"]
    for (ids,), label in examples:
        stack: list[list[Any]] = [[]]
        for symbol in (symbols[i] for i in ids):
            if symbol in OPERATORS:
                stack.append([symbol])
            elif symbol == "]":
                operator, *values = stack.pop()
                stack[-1].append(OPERATORS[operator](values))
            else:
                stack[-1].append(int(symbol))
        if stack != [[int(label)]]:
            return f"{ids!r} has the value {stack}, not {label}"
    return None


def listops_release(folder: Path) -> None:
    """Write ListOps as the release has it, with brackets that carry no information."""
    made = task_of("listops")
    assert isinstance(made, GeneratedTask)
    generate(made, folder, 0, Counts(6, 3, 3))
    release = folder / "lra_release" / "listops-1000"
    release.mkdir(parents=True)
    for path in (folder / "listops").glob("*.tsv"):
        header, *lines = path.read_text().splitlines()
        pairs = [line.split("\t") for line in lines]
        bracketed = [f"( {source} )\t{target}" for source, target in pairs]
        (release / path.name).write_text("\n".join([header, *bracketed, ""]))
        path.unlink()
    (folder / "listops" / "settings.json").unlink()


def real_rows(name: str, count: int, made: Callable[[int], Row]) -> list[Row]:
    """Return the first rows of a shared file, or made ones where there is none."""
    if not (SHARED / name).is_file():
        return [made(i) for i in range(count)]
    with lzma.open(SHARED / name, "rb") as file:
        return [json.loads(next(file)) for _ in range(count)]


def imdb_rows(part: str) -> list[Row]:
    """Return reviews, cut to 300 characters; the longest is whole."""
    rows = real_rows(
        f"imdb_{part}.jsonl.xz", 40, lambda i: {"text": f"{part} {i}" * 40, "label": i % 2, "id": i, "rating": 1}
    )
    return [{**row, "text": row["text"][:300]} for row in rows]


def imdb_compact(folder: Path) -> None:
    """Write the two compact files of IMDb."""
    for part in ("train", "test"):
        (folder / f"imdb_{part}.jsonl.xz").write_bytes(PACKERS[".xz"](to_jsonl(imdb_rows(part))))


def imdb_official(folder: Path) -> None:
    """Write the folder of IMDb."""
    for part in ("train", "test"):
        for row in imdb_rows(part):
            path = folder / "aclImdb" / part / ("neg", "pos")[row["label"]] / f"{row['id']}_{row['rating']}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(row["text"])


def imdb_mistake(folder: Path, examples: Sequence[Example]) -> str | None:
    """Return an example of IMDb that is not in the files."""
    rows: Counter[Example] = Counter()
    if (folder / "aclImdb").exists():
        for path in folder.rglob("*.txt"):
            rows[(path.read_bytes(),), {"neg": "negative", "pos": "positive"}[path.parent.name]] += 1
    else:
        for path in folder.glob("*.xz"):
            for row in records(path):
                rows[(row["text"].encode(),), ("negative", "positive")[row["label"]]] += 1
    return f"{(Counter(examples) - rows)!r:.300} are not in the files" if Counter(examples) - rows else None


def papers() -> list[Row]:
    """Return papers, cut to 200 characters."""
    rows = real_rows("aan_lite_docs.jsonl.xz", 20, lambda i: {"id": f"P{i}", "title": "a", "text": f"paper {i} " * 9})
    return [{**row, "text": row["text"][:200]} for row in rows]


def aan_lite(folder: Path) -> None:
    """Write papers and pairs of them."""
    docs = papers()
    names = [row["id"] for row in docs]
    (folder / "aan_lite_docs.jsonl.xz").write_bytes(PACKERS[".xz"](to_jsonl(docs)))
    for shift, part in enumerate(("train", "eval", "test"), 1):
        lines = [f"{i % 2}\t{name}\t{names[(i + shift) % len(names)]}\n" for i, name in enumerate(names)]
        (folder / f"aan_lite_pairs.{part}.tsv.gz").write_bytes(PACKERS[".gz"]("".join(lines).encode()))


def aan_release(folder: Path) -> None:
    """Write the three files of the release."""
    docs = papers()
    (folder / "aan").mkdir()
    for shift, part in enumerate(("train", "eval", "test"), 1):
        pairs = [(row, docs[(i + shift) % len(docs)]) for i, row in enumerate(docs)]
        texts = [[" ".join(row["text"].split()) for row in pair] for pair in pairs]
        lines = [f"{i % 2}.0\tid{i}\tid\t{one}\t{other}\n" for i, (one, other) in enumerate(texts)]
        (folder / "aan" / f"new_aan_pairs.{part}.tsv").write_text("".join(lines))


def pixels(count: int, *shape: int) -> NDArray[np.uint8]:
    """Return random images (count, *shape)."""
    return np.random.default_rng(0).integers(256, size=(count, *shape), dtype=np.uint8)


def classes(count: int) -> NDArray[np.uint8]:
    """Return labels (count,)."""
    return (np.arange(count) % 10).astype(np.uint8)


def image_archive(name: str, side: int) -> Callable[[Path], None]:
    """Return the writer of a compact file of images."""

    def write(folder: Path) -> None:
        arrays = {"x_train": pixels(TRAIN, side, side), "y_train": classes(TRAIN)}
        np.savez_compressed(folder / name, **arrays, x_test=pixels(TEST, side, side), y_test=classes(TEST))

    return write


def cifar_batches(folder: Path) -> None:
    """Write the six python batches of CIFAR-10, in several protocols."""
    (folder / "cifar-10-batches-py").mkdir()
    for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        batch = {b"batch_label": b"a batch", b"labels": classes(6).tolist(), b"data": pixels(6, 3072)}
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(batch, protocol=i % 5))


def mnist_idx(folder: Path) -> None:
    """Write the four idx files of MNIST."""
    (folder / "mnist").mkdir()
    for i, name in enumerate(IDX_FILES):
        count = TRAIN if i < 2 else TEST
        array = classes(count) if i % 2 else pixels(count, 28, 28)
        head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
        (folder / "mnist" / name).write_bytes(PACKERS[".gz"](head + array.tobytes()))


def pathfinder_release(folder: Path) -> None:
    """Write metadata and PNG images as the release of Pathfinder has them."""
    inner = folder / "pathfinder32" / "curv_baseline"
    for name in ("metadata", "imgs/0", "imgs/1"):
        (inner / name).mkdir(parents=True)
    for part in range(2):
        lines = []
        for i, image in enumerate(pixels(15, 32, 32)):
            Image.fromarray(image).save(inner / f"imgs/{part}/sample_{i}.png")
            lines.append(f"imgs/{part} sample_{i}.png {i} {i % 2} 1.8 6 2\n")
        (inner / "metadata" / f"{part}.npy").write_text("".join(lines))


def named(task: str) -> Callable[[Path], Task]:
    """Return a function that returns a task without settings."""
    return lambda folder: task_of(task)


SAMPLES: Mapping[str, Sample] = {
    **{
        f"files {suffix}": user_files(suffix)
        for suffix in (*WRITERS, *(f"{kind}{packed}" for kind in (".jsonl", ".csv", ".tsv") for packed in PACKERS))
    },
    "files pairs .csv": user_files(".csv", pair=True),
    "files pairs .parquet": user_files(".parquet", pair=True),
    "files validation .jsonl": user_files(".jsonl", validation=True),
    "tokenizer": user_files(".jsonl", tokenizer=True),
    "listops": generated("listops_short"),
    "listops release": Sample(listops_release, named("listops"), lambda folder, rows: wrong_value(rows)),
    "imdb compact": Sample(imdb_compact, named("imdb"), imdb_mistake),
    "imdb folder": Sample(imdb_official, named("imdb"), imdb_mistake),
    "aan release": Sample(aan_release, named("aan")),
    "aan_lite": Sample(aan_lite, named("aan_lite")),
    "cifar10 compact": Sample(image_archive("cifar10_gray.npz", 32), named("cifar10")),
    "cifar10 batches": Sample(cifar_batches, named("cifar10")),
    "mnist compact": Sample(image_archive("mnist.npz", 28), named("mnist")),
    "mnist idx": Sample(mnist_idx, named("mnist")),
    "pathfinder archives": generated("pathfinder32_easy"),
    "pathfinder release": Sample(pathfinder_release, named("pathfinder32_easy")),
    "recall": generated("recall", {"distance": 3, "segment_tokens": 8}),
    "remember": generated("remember", {"pairs": 4, "value_size": 2}),
    "stories": generated("stories", {"story_tokens": 128}),
}
"""Every format, by name."""
