"""The user's own unlabelled texts: every character is kept, and some of them are held out."""

import gzip
import json
from itertools import pairwise

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rmaat.errors import UserError
from rmaat.tasks import load, task_of
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.texts import FIRST, LATER


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
    for part in (train, validation):
        labels = TokenReader(data["train" if part is train else "validation"]).labels
        goes_on = [any(before + piece in text for text in whole) for before, piece in pairwise(part)]
        assert labels.tolist() == [FIRST, *(LATER if on else FIRST for on in goes_on)]
    assert sum(goes_on) > 5


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


@pytest.fixture
def tokenizer(tmp_path):
    """The folder of a tokenizer of 600 words, w0 to w599."""
    words = {f"w{i}": i for i in range(600)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="w0").save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_texts_with_a_tokenizer(tmp_path, tokenizer):
    file = tmp_path / "one.jsonl"
    file.write_text("\n".join(json.dumps({"text": text}) for text in (" ".join(f"w{i}" for i in range(600)), " ")))
    data = read(tmp_path, train_file=str(file), tokenizer=tokenizer)
    ids = np.concatenate(
        [example["input_ids"] for part in ("train", "validation") for example in TokenReader(data[part])]
    )
    # A word at the border of two blocks is cut into two unknown ones.
    assert len(np.unique(ids)) > 540


def test_the_cache_tells_readers_and_parts_apart(tmp_path):
    record = json.dumps({"text": "ab" * 500})
    for name in ("one.txt", "one.jsonl"):
        (tmp_path / name).write_text(record)
    text, records = (
        b"".join(pieces(read(tmp_path, train_file=str(tmp_path / n))["train"])) for n in ("one.txt", "one.jsonl")
    )
    assert len(text) > len(records)
    assert set(records) == set(b"ab")
    for part, names in (("p", "ab"), ("q", "c"), ("r", "a"), ("s", "bc")):
        (tmp_path / part).mkdir()
        for name in names:
            (tmp_path / part / f"{name}.txt").write_text(name * 100)
    for train, validation, expected in (("p", "q", "ab"), ("r", "s", "a")):
        data = read(tmp_path, train_file=str(tmp_path / train), validation_file=str(tmp_path / validation))
        assert set(b"".join(pieces(data["train"]))) == set(expected.encode())


def test_hidden_files_are_left_out_and_shared_ones_refused(tmp_path):
    folder = tmp_path / "texts"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "x.md").write_text("hidden " * 500)
    (folder / "A.TXT").write_text("seen " * 500)
    assert b"hidden" not in b"".join(pieces(read(tmp_path, train_file=str(folder))["train"]))
    with pytest.raises(UserError, match="in both train_file and validation_file"):
        read(tmp_path, train_file=str(folder), validation_file=str(folder / "A.TXT"))
