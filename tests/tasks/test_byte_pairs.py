"""The tokenizer that is made from the texts of train: its tokens, its cache, its place in runs."""

import json
from collections import Counter
from pathlib import Path

import pytest

from rmaat.errors import UserError
from rmaat.tasks import load
from rmaat.tasks.files import files_task
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.texts import TextsTask
from rmaat.tasks.tokenizer import byte_pair_tokenizer

WORDS = {"umbrella": 12, "kitchen": 11, "garden": 9}
"""Words of the texts, with the number of their occurrences."""


def write(path: Path, texts: list[str]) -> str:
    rows = ({"text": text, "label": i % 2} for i, text in enumerate(texts))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def options(tmp_path: Path) -> FilesOptions:
    texts = [f"{i} {word} é" for word, count in WORDS.items() for i in range(count)]
    return FilesOptions(
        train_file=write(tmp_path / "train.jsonl", texts),
        test_file=write(tmp_path / "test.jsonl", ["bridge " * 20 + str(i) for i in range(4)]),
        tokenizer="auto",
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def merges(words: dict[str, int], fewest: int) -> list[str]:
    """The tokens that byte-pair encoding adds, as written in arXiv 1508.07909, for words of ASCII."""
    pieces = {word: list(word) for word in words}
    added = []
    while True:
        pairs = Counter[tuple[str, str]]()
        for word, count in words.items():
            for pair in zip(pieces[word], pieces[word][1:], strict=False):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < fewest:
            return added
        first, second = max(pairs, key=lambda pair: pairs[pair])
        added.append(first + second)
        for word, parts in pieces.items():
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == (first, second):
                    parts[i : i + 2] = [first + second]
                i += 1
            pieces[word] = parts


def test_tokens_are_those_of_byte_pair_encoding() -> None:
    words = {"ab": 40, "abc": 25, "abd": 11, "xy": 9}
    tokenizer = byte_pair_tokenizer(word for word, count in words.items() for _ in range(count))
    assert tokenizer.get_vocab().keys() - byte_pair_tokenizer([]).get_vocab().keys() == set(merges(words, 10))
    assert len(byte_pair_tokenizer([])) == 256


def test_frequent_words_of_train_are_tokens(options: FilesOptions) -> None:
    task = files_task(options)
    tokens = {word: len(task.encode(f" {word}")) for word in (*WORDS, "bridge")}
    assert (tokens["umbrella"], tokens["kitchen"]) == (1, 1)
    # Too rare, and only in the test file.
    assert tokens["garden"] > 1
    assert tokens["bridge"] > 1
    assert task.vocab_size == 1 + max(max(task.encode(text)) for text in (" umbrella", " kitchen", "\x00", "ÿ"))


@pytest.mark.parametrize("text", ["a  b\n\tc", "Ā and Ā", "Ærøskøbing 東京 🎈", "\x00\x7f", " umbrella"])
def test_ids_decode_to_the_text(options: FilesOptions, text: str) -> None:
    task = files_task(options)
    assert task.decode(task.known_ids(text)) == text


def test_it_is_made_once(options: FilesOptions, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = files_task(options).tokenizer_checksum()
    with monkeypatch.context() as patch:
        patch.setattr("rmaat.tasks.tokenizer.byte_pair_tokenizer", lambda texts: pytest.fail("made again"))
        assert files_task(options).tokenizer_checksum() == first
    write(Path(options.train_file or ""), ["something else"] * 20)
    assert files_task(options).tokenizer_checksum() != first
    assert len([path for path in cache.iterdir() if path.name.startswith("tokenizer-") and path.is_dir()]) == 2


def test_of_a_large_file_some_texts_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train.jsonl"
    write(path, ["first", "second", "third"] * 40)
    monkeypatch.setattr("rmaat.tasks.tokenizer.BYTES_READ", path.stat().st_size // 3 + 1)
    task = files_task(FilesOptions(train_file=str(path), test_file=str(path), tokenizer="auto"))
    assert len(task.encode("first")) == 1
    assert len(task.encode("second")) > 1


def test_text_files_have_one_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("umbrella and kitchen " * 400)
    task = TextsTask(FilesOptions(train_file=str(tmp_path / "a.txt"), tokenizer="auto"))
    assert len(task.known_ids(" umbrella")) == 1
    part = load(task, tmp_path)["train"]
    assert sum(map(len, part["input_ids"])) < 4000


def test_a_mistake_is_reported_with_its_place(options: FilesOptions, tmp_path: Path) -> None:
    rows = [f'{{"text": "{i} a\\ud800", "label": {i % 2}}}\n' for i in range(8)]
    Path(options.train_file or "").write_text("".join(rows))
    with pytest.raises(UserError, match=r"train\.jsonl, line 1"):
        load(files_task(options), tmp_path)
