"""The user's own unlabelled texts: every character is kept, and some of them are held out."""

import gzip
import json

import numpy as np
import pytest

from rmaat.errors import UserError
from rmaat.tasks import load, task_of
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.reader import TokenReader


def read(tmp_path, max_seq_len=64, seed=0, **options):
    return load(task_of("texts", FilesOptions(**options)), tmp_path, seed, max_seq_len)


def pieces(part):
    return [example["input_ids"].tobytes() for example in TokenReader(part)]


def text_of(seed, length):
    letters = np.random.default_rng(seed).integers(97, 123, length, dtype=np.uint8)
    return letters.tobytes().decode()


def test_a_folder_is_read_whole(tmp_path):
    folder = tmp_path / "texts"
    (folder / "inner").mkdir(parents=True)
    texts = [text_of(i, length) for i, length in enumerate((5000, 20_000, 300, 4000))]
    (folder / "a.txt").write_text(texts[0])
    (folder / "b.md.gz").write_bytes(gzip.compress(texts[1].encode()))
    (folder / "inner" / "c.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in (texts[2], "")))
    (folder / "inner" / "d.csv").write_text(f"text,label\n{texts[3]},1\n")
    (folder / "picture.png").write_bytes(b"\xff\xfe")
    data = read(tmp_path, train_file=str(folder))
    train, validation = pieces(data["train"]), pieces(data["validation"])
    assert sum(map(len, train)) + sum(map(len, validation)) == sum(map(len, texts))
    whole = [text.encode() for text in texts]
    assert all(any(piece in text for text in whole) for piece in train + validation)
    assert max(map(len, train)) == 64
    share = sum(map(len, validation)) / sum(map(len, texts))
    assert 0.03 < share < 0.08


def test_the_held_out_blocks_depend_on_the_seed_alone(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text(text_of(0, 30_000))
    one, again, other = (pieces(read(tmp_path, seed=seed, train_file=str(file))["validation"]) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_blocks_do_not_break_characters(tmp_path):
    file = tmp_path / "one.txt"
    file.write_text("ü€😀" * 60_000)
    data = read(tmp_path, max_seq_len=2**20, train_file=str(file))
    parts = [*pieces(data["train"]), *pieces(data["validation"])]
    assert "".join(sorted("".join(part.decode() for part in parts))) == "".join(sorted("ü€😀" * 60_000))


def test_a_validation_file_is_read_instead(tmp_path):
    for name in ("train", "validation"):
        (tmp_path / f"{name}.txt").write_text(name)
    files = {f"{name}_file": str(tmp_path / f"{name}.txt") for name in ("train", "validation")}
    data = read(tmp_path, **files)
    assert pieces(data["train"]) == [b"train"]
    assert pieces(data["validation"]) == [b"validation"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"short", "too short to hold"),
        (b"", "too short to hold"),
        (b"ab\xff" * 5000, "not UTF-8 after byte 2"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    file = tmp_path / "one.txt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path, train_file=str(file))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="needs train_file"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"gone\.txt is missing"):
        read(tmp_path, train_file=str(tmp_path / "gone.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file whose name ends in one of \.txt"):
        read(tmp_path, train_file=str(tmp_path / "empty"))
    (tmp_path / "rows.jsonl").write_text('{"text": 3}')
    with pytest.raises(UserError, match="is no text but int"):
        read(tmp_path, train_file=str(tmp_path / "rows.jsonl"))
    with pytest.raises(UserError, match="label_column"):
        read(tmp_path, train_file="x", label_column="y")
