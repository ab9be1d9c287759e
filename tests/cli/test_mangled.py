"""Damaged or harmful files: one line naming file and place, exit status 2, nothing half-written, nothing run or put outside."""

import gzip
import io
import json
import lzma
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmaat.cli.main import main

PAIR = b"1.0\tA\tB\tone\ttwo\n"
REVIEW = b'{"text": "good", "label": 1}\n'


def aan(**parts: bytes) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        (data_dir / "aan").mkdir()
        for part in ("train", "eval", "test"):
            (data_dir / "aan" / f"new_aan_pairs.{part}.tsv").write_bytes(parts.get(part, PAIR))
        return ["aan"]

    return put


def aan_lite(pairs: bytes, papers: bytes | None = None) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        texts = b"".join(json.dumps({"id": name, "text": name}).encode() + b"\n" for name in "ab")
        (data_dir / "aan_lite_docs.jsonl.xz").write_bytes(lzma.compress(texts) if papers is None else papers)
        for part in ("train", "eval", "test"):
            (data_dir / f"aan_lite_pairs.{part}.tsv.gz").write_bytes(pairs)
        return ["aan_lite"]

    return put


def imdb(train: bytes) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        for part, content in (("train", train), ("test", lzma.compress(REVIEW))):
            (data_dir / f"imdb_{part}.jsonl.xz").write_bytes(content)
        return ["imdb"]

    return put


def files(suffix: str, train: bytes | None = None, test: bytes | None = None) -> Callable[[Path], list[str]]:
    good = b"text\tlabel\n" + b"".join(b"text %d\t%d\n" % (i, i % 2) for i in range(30))

    def put(data_dir: Path) -> list[str]:
        arguments = ["files"]
        for part, content in (("train", train), ("test", test)):
            path = data_dir / f"{part}{'.tsv' if content is None else suffix}"
            path.write_bytes(good if content is None else content)
            arguments += [f"--{part}_file", str(path)]
        return arguments

    return put


def cifar10(batch: bytes) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        (data_dir / "cifar-10-batches-py").mkdir()
        for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            (data_dir / "cifar-10-batches-py" / name).write_bytes(batch)
        return ["cifar10"]

    return put


def compact_images(content: bytes) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        (data_dir / "cifar10_gray.npz").write_bytes(content)
        return ["cifar10"]

    return put


def archive(*names: str, cut: int = 0) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 1000
                tar.addfile(info, io.BytesIO(bytes(1000)))
        (data_dir / "downloads").mkdir()
        content = out.getvalue()
        (data_dir / "downloads" / "lra_release.tar.gz").write_bytes(content[: len(content) - cut])
        return ["aan", "--download"]

    return put


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


def npz(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


def listops(train: bytes) -> Callable[[Path], list[str]]:
    def put(data_dir: Path) -> list[str]:
        (data_dir / "listops").mkdir()
        for i, part in enumerate(("train", "val", "test")):
            content = train if part == "train" else b"Source\tTarget\n[MIN 3 %d ]\t%d\n" % (i, i)
            (data_dir / "listops" / f"basic_{part}.tsv").write_bytes(content)
        return ["listops"]

    return put


IMAGES = npz(x_train=np.zeros((50, 32, 32), np.uint8), y_train=np.zeros(50, int))


@pytest.mark.parametrize(
    ("put", "place"),
    [
        pytest.param(aan_lite(gzip.compress(b"1\ta\tb\n")[:-4]), "test.tsv.gz, after line 1: not a whole", id="cut gz"),
        pytest.param(imdb(lzma.compress(REVIEW)[:-9]), "imdb_train.jsonl.xz, after line 1: not a whole", id="cut xz"),
        pytest.param(compact_images(IMAGES[:-30]), "cifar10_gray.npz: not a whole .npz file", id="cut npz"),
        pytest.param(
            files(".parquet", b"PAR1 and no more"), "train.parquet, after row 0: not a whole", id="cut parquet"
        ),
        pytest.param(archive("lra_release/a", cut=9), "lra_release.tar.gz: not a whole .tar.gz", id="cut tar"),
        pytest.param(aan(test=PAIR + b"1\ta\tb\n"), "test.tsv, line 2: 3 columns, not the 5", id="columns of pairs"),
        pytest.param(listops(b"Source\tTarget\n[MIN 3 "), "basic_train.tsv, line 2: expected", id="cut listops"),
        pytest.param(files(".csv", b"txt,label\na,0\n"), "train.csv, line 1: no column 'text'", id="columns of csv"),
        pytest.param(compact_images(IMAGES), "cifar10_gray.npz: not a whole", id="columns of npz"),
        pytest.param(aan(train=PAIR + b"1\ta\tb\t\xff\tx\n"), "train.tsv, line 2: byte 0", id="bytes of pairs"),
        pytest.param(imdb(lzma.compress(REVIEW + b'{"text": "\xff"}')), "train.jsonl.xz, line 2: ", id="bytes of json"),
        pytest.param(
            aan_lite(gzip.compress(b""), lzma.compress(b'{"id": "a", "text": "\xff"}')),
            "aan_lite_docs.jsonl.xz, line 1: ",
            id="bytes of papers",
        ),
        pytest.param(files(".tsv", test=b"text\tlabel\na\xff\t0\n"), "test.tsv, line 2: byte 1", id="bytes of tsv"),
        pytest.param(aan(train=b""), "new_aan_pairs.train.tsv has no pairs", id="empty tsv"),
        pytest.param(aan_lite(b""), "aan_lite_pairs.test.tsv.gz has no pairs", id="empty gz"),
        pytest.param(aan_lite(b"", lzma.compress(b"")), "aan_lite_docs.jsonl.xz has no papers", id="empty papers"),
        pytest.param(imdb(b""), "imdb_train.jsonl.xz, after line 0: not a whole", id="empty xz"),
        pytest.param(compact_images(b""), "cifar10_gray.npz: not a whole", id="empty npz"),
        pytest.param(cifar10(b""), "data_batch_1: not a batch", id="empty batch"),
        pytest.param(files(".csv", test=b""), "test.csv is empty", id="empty csv"),
        pytest.param(files(".jsonl", b""), "train.jsonl has no examples", id="empty jsonl"),
        pytest.param(archive(), "lra_release.tar.gz holds nothing, not the folder lra_release", id="empty tar"),
        pytest.param(files(".tsv", test=b"text\tlabel\na\tnew\n"), "test.tsv, line 2: the label 'new'", id="new label"),
        pytest.param(aan(eval=PAIR + b"2\ta\tb\tx\ty\n"), "eval.tsv, line 2: the label must be 0 or 1", id="label 2"),
        pytest.param(
            archive("lra_release/a", "../../out"), "lra_release.tar.gz: refused, nothing was", id="climbs out"
        ),
        pytest.param(cifar10(pickle.dumps(Harmful())), "data_batch_1: not a batch of CIFAR-10 (it asks", id="code"),
        pytest.param(compact_images(npz(x_train=np.array([Harmful()]))), "cifar10_gray.npz: not a", id="code in npz"),
    ],
)
def test_one_line_and_nothing_left(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    put: Callable[[Path], list[str]],
    place: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "cache"))
    data_dir = tmp_path / "inner" / "data"
    data_dir.mkdir(parents=True)
    arguments = put(data_dir)
    there = {path for path in data_dir.rglob("*") if path.is_file()}
    assert main(["data", *arguments, "--data_dir", str(data_dir)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("rmaat: error: ")
    assert error.count("\n") == 1
    assert place in error
    after = {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != ".lock"}
    assert {path for path in after if path.parent.name != "checksums"} == there
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".partial", ".unpacking")]
