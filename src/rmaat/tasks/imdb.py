"""Sentiment of IMDb reviews, byte by byte (Maas et al., ACL 2011; LRA's Text task).

The Long Range Arena validates on the test part. Here the test part is for testing only, and a tenth
of the train part is held out for validation: equally many of each label, chosen by the seed. Before
that, reviews of train that repeat one of test, or an earlier one of train, are dropped.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmaat.errors import UserError
from rmaat.tasks.base import Part, TaskInfo
from rmaat.tasks.download import ACL_IMDB
from rmaat.tasks.records import read_records
from rmaat.tasks.splits import HELD_OUT, digest, held_out, repeated, repetition_notes
from rmaat.tasks.text import VOCAB_SIZE, BytesTask, encode_bytes

LABELS = {"neg": 0, "pos": 1}
"""The label of each official folder."""


@dataclass(frozen=True)
class Review:
    """One review; `text` is UTF-8."""

    text: bytes
    label: int


class Imdb(BytesTask):
    """IMDb reviews of more than `longer_than` bytes, cut to `max_seq_len`."""

    download = ACL_IMDB

    def __init__(
        self, name: str, summary: str, max_seq_len: int, sizes: tuple[int, int, int], longer_than: int = 0
    ) -> None:
        self.info = TaskInfo(
            name=name,
            summary=summary,
            kind="text",
            vocab_size=VOCAB_SIZE,
            label_names=("negative", "positive"),
            max_seq_len=max_seq_len,
            sizes=sizes,
            source="Large Movie Review Dataset: imdb_{train,test}.jsonl.xz, or the folder aclImdb",
            seeded=True,
        )
        self.longer_than = longer_than

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the two compact files, else all official reviews by part, number and label."""
        compact = tuple(data_dir / f"imdb_{part}.jsonl.xz" for part in ("train", "test"))
        if all(path.is_file() for path in compact):
            return compact
        folders = [data_dir / "aclImdb" / part / label for part in ("train", "test") for label in LABELS]
        missing = next((folder for folder in folders if not folder.is_dir()), None)
        if missing is not None:
            lacking = next(path for path in compact if not path.is_file())
            raise UserError(
                f"{lacking} is missing (looked in {data_dir}), and so is the folder {missing}; "
                f"get it with `rmaat data {self.info.name} --download`, or unpack aclImdb_v1.tar.gz into {data_dir}"
            )
        return tuple(path for part in ("train", "test") for path in _official_files(data_dir / "aclImdb" / part))

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read the reviews, drop repetitions and hold out the validation part."""
        sources = self.sources(data_dir)
        train, test = ([r for r in part if len(r.text) > self.longer_than] for part in _read_parts(sources))
        in_test, again = repeated((digest([r.text]) for r in train), {digest([r.text]) for r in test})
        usable = ~(in_test | again)
        labels = np.array([review.label for review in train], np.int64)
        validation = held_out(labels, usable, seed, per_class=len(train) // (HELD_OUT * len(LABELS)))
        return {
            "train": _part(
                itertools.compress(train, usable & ~validation), repetition_notes(in_test, again, "reviews")
            ),
            "validation": _part(itertools.compress(train, validation)),
            "test": _part(test),
        }


def _part(reviews: Iterable[Review], notes: Sequence[str] = ()) -> Part:
    rows = [((review.text,), review.label) for review in reviews]
    return Part(rows, list(notes), expected=len(rows))


def _read_parts(sources: tuple[Path, ...]) -> tuple[list[Review], list[Review]]:
    if len(sources) == 2 and all(path.suffix == ".xz" for path in sources):
        return _read_compact(sources[0]), _read_compact(sources[1])
    parts: dict[str, list[Review]] = {"train": [], "test": []}
    for path in sources:
        parts[path.parent.parent.name].append(_read_official(path))
    return parts["train"], parts["test"]


def _official_files(folder: Path) -> list[Path]:
    """Return the reviews `NUMBER_RATING.txt` of a part by number, then label.

    This is the order of the compact files.
    """
    named: list[tuple[int, str, Path]] = []
    for label in LABELS:
        for path in (folder / label).iterdir():
            match = re.fullmatch(r"(\d+)_\d+\.txt", path.name)
            if match is None or not path.is_file():
                raise UserError(f"{path}: not a review; the files of this folder are named NUMBER_RATING.txt")
            named.append((int(match[1]), label, path))
    if not named:
        raise UserError(f"{folder} has no reviews; unpack aclImdb_v1.tar.gz again")
    return [path for _, _, path in sorted(named)]


def _read_official(path: Path) -> Review:
    text = path.read_bytes()
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8") from error
    if not text:
        raise UserError(f"{path}: the review is empty")
    return Review(text, LABELS[path.parent.name])


def _read_compact(path: Path) -> list[Review]:
    reviews = []
    for where, record in read_records(path, ("text", "label")):
        text, label = record["text"], record["label"]
        if not isinstance(text, str):
            raise UserError(f"{path}, {where}: 'text' must be a string, found {text!r:.40}")
        if type(label) is not int or label not in LABELS.values():
            raise UserError(f"{path}, {where}: 'label' must be 0 (negative) or 1 (positive), found {label!r:.40}")
        try:
            reviews.append(Review(encode_bytes(text).tobytes(), label))
        except UserError as error:
            raise UserError(f"{path}, {where}: {error}") from error
    if not reviews:
        raise UserError(f"{path} has no reviews")
    return reviews


IMDB_LRA = Imdb(
    name="imdb_lra",
    summary="sentiment of a film review from its first 4,096 bytes [LRA]",
    max_seq_len=4096,
    sizes=(22_281, 2_500, 25_000),
)

IMDB = Imdb(
    name="imdb",
    summary="sentiment of a film review from its first 1,024 bytes",
    max_seq_len=1024,
    sizes=(22_281, 2_500, 25_000),
)

IMDB_LONG = Imdb(
    name="imdb_long",
    summary="sentiment of film reviews over 1,024 bytes, from their first 4,096",
    max_seq_len=4096,
    sizes=(10_492, 1_174, 11_513),
    longer_than=1024,
)
