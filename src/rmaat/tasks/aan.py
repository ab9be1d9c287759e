"""Citation between two papers, from their first 4,000 bytes: the Long Range Arena's Retrieval task.

`aan` reads the release's `new_aan_pairs.{train,eval,test}.tsv`. A line is a pair: label, id1, id2,
text1 and text2, separated by tabs, without quotes or a header. The files have gigabytes and are
read as a stream. `aan_lite` reads a smaller set of other papers, made for the development of this
project. Its files are not published, and results on it are not results on `aan`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rmaat.errors import UserError
from rmaat.tasks.base import SPLITS, Part, Row, TaskInfo, first_complete
from rmaat.tasks.download import LRA_RELEASE, release_folders
from rmaat.tasks.records import read_records
from rmaat.tasks.splits import digest, parts_without_repetitions
from rmaat.tasks.text import VOCAB_SIZE, BytesTask, encode_bytes, read_lines, utf8

PART_NAMES = {"train": "train", "validation": "eval", "test": "test"}

LABELS = {b"0": 0, b"1": 1, b"0.0": 0, b"1.0": 1}

REPEATED = "pairs that a later part has too, in this order or the other"

FIELDS = ("label", "id1", "id2", "text1", "text2")

Pair = tuple[tuple[bytes, bytes], int]
"""Both texts in UTF-8, and the label."""


def _info(name: str, summary: str, sizes: tuple[int, int, int], source: str) -> TaskInfo:
    return TaskInfo(
        name=name,
        summary=summary,
        kind="text",
        vocab_size=VOCAB_SIZE,
        label_names=("no citation", "citation"),
        max_seq_len=4000,
        sizes=sizes,
        source=source,
        pair=True,
    )


class Aan(BytesTask):
    """The pairs of the release. Pairs that are in a later part too, or lack a text, are dropped."""

    download = LRA_RELEASE
    info = _info(
        "aan",
        "whether one paper cites the other, 4,000 bytes of each [LRA]",
        (147_086, 18_090, 17_437),
        "new_aan_pairs.{train,eval,test}.tsv of the LRA release",
    )

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the three files of the first folder that has them all."""
        folders = [
            *(folder / "tsv_data" for folder in release_folders(data_dir)),
            data_dir / "aan",
            data_dir / "tsv_data",
        ]
        candidates = [[folder / f"new_aan_pairs.{PART_NAMES[split]}.tsv" for split in SPLITS] for folder in folders]
        return first_complete(
            candidates,
            f"get it with `rmaat data {self.info.name} --download`, or unpack {LRA_RELEASE.name} "
            f"(see {LRA_RELEASE.page}) so that {data_dir / LRA_RELEASE.folder} is its folder",
        )

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read the files as a stream, the smaller ones twice; the seed is not used."""
        paths = dict(zip(SPLITS, self.sources(data_dir), strict=True))
        return parts_without_repetitions(
            lambda split, notes: _pairs(paths[split], notes), _unordered_digest, REPEATED, self.info.sizes
        )


def _unordered_digest(pair: Row) -> bytes:
    return digest(sorted(map(bytes, pair[0])))


def _pairs(path: Path, notes: list[str]) -> Iterator[Pair]:
    lacking = number = 0
    for number, line in read_lines(path):
        fields = line.split(b"\t")
        if len(fields) != len(FIELDS):
            raise UserError(f"{path}, line {number}: {len(fields)} columns, not the 5 of {', '.join(FIELDS)}")
        label, _, _, *texts = fields
        if label not in LABELS:
            raise UserError(
                f"{path}, line {number}: the label must be 0 or 1, found '{label[:40].decode(errors='replace')}'"
            )
        first, second = (utf8(path, number, text) for text in texts)
        if first and second:
            yield (first, second), LABELS[label]
        else:
            lacking += 1
    if not number:
        raise UserError(f"{path} has no pairs; fetch it again")
    if lacking:
        notes.append(f"dropped {lacking:,} pairs that lack a text")


class AanLite(BytesTask):
    """Fewer papers and the citations between them.

    Negative pairs are drawn by the popularity of the cited paper. Pairs that are in a later part
    too, in either order, are dropped.
    """

    info = _info(
        "aan_lite",
        "a smaller stand-in for aan from other papers; not the LRA data",
        (39_123, 4_801, 4_814),
        "this project's development data, not published: aan_lite_docs.jsonl.xz, aan_lite_pairs.*.tsv.gz",
    )

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the file of papers, and the pairs of each part."""
        pairs = [data_dir / f"aan_lite_pairs.{PART_NAMES[split]}.tsv.gz" for split in SPLITS]
        return first_complete(
            [[data_dir / "aan_lite_docs.jsonl.xz", *pairs]],
            f"aan_lite is a substitute whose files are not published: put the four of this project's development data into "
            f"{data_dir}, or take the official task aan, which others use",
        )

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read all papers, and the pairs as a stream; the seed is not used."""
        papers, *pairs = self.sources(data_dir)
        texts = _papers(papers)
        paths = dict(zip(SPLITS, pairs, strict=True))
        return parts_without_repetitions(
            lambda split, notes: _cited(paths[split], texts, papers), _unordered_digest, REPEATED, self.info.sizes
        )


def _papers(path: Path) -> dict[bytes, bytes]:
    """Return the text of each paper by its id, both in UTF-8."""
    texts: dict[bytes, bytes] = {}
    for where, record in read_records(path, ("id", "text")):
        try:
            name, text = record["id"], record["text"]
            if not (isinstance(name, str) and isinstance(text, str)):
                raise UserError("'id' and 'text' must be strings")
            texts[encode_bytes(name).tobytes()] = encode_bytes(text).tobytes()
        except UserError as error:
            raise UserError(f"{path}, {where}: {error}") from error
    if not texts:
        raise UserError(f"{path} has no papers; fetch it again")
    return texts


def _cited(path: Path, texts: Mapping[bytes, bytes], papers: Path) -> Iterator[Pair]:
    number = 0
    for number, line in read_lines(path):
        fields = line.split(b"\t")
        if len(fields) != 3 or fields[0] not in LABELS:
            raise UserError(f"{path}, line {number}: expected a label of 0 or 1 and two ids, separated by tabs")
        for paper in fields[1:]:
            if paper not in texts:
                raise UserError(f"{path}, line {number}: {papers.name} has no paper '{paper.decode(errors='replace')}'")
        yield (texts[fields[1]], texts[fields[2]]), LABELS[fields[0]]
    if not number:
        raise UserError(f"{path} has no pairs; fetch it again")


AAN = Aan()

AAN_LITE = AanLite()
