"""One's own files: every format, labels, pairs, tokenizers, held-out validation, and every kind of mistake."""

import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rmaat.errors import UserError
from rmaat.tasks import load, task_of, text
from rmaat.tasks.files import files_task
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.records import read_records
from rmaat.tasks.statistics import part_statistics

Rows = list[dict[str, Any]]


def jsonl(rows: Rows) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def delimited(**how: Any) -> Callable[[Rows], bytes]:
    def write(rows: Rows) -> bytes:
        out = io.StringIO(newline="")
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\r\n", **how)
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue().encode()

    return write


def parquet(rows: Rows) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def parquet_of_columns(*names: str) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array(["a", "b"])] * len(names), names=list(names)), out)
    return out.getvalue()


FORMATS: dict[str, Callable[[Rows], bytes]] = {
    ".jsonl": jsonl,
    ".csv": delimited(),
    ".tsv": delimited(delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None),
    ".parquet": parquet,
    ".jsonl.gz": lambda rows: gzip.compress(jsonl(rows)),
    ".csv.xz": lambda rows: lzma.compress(delimited()(rows)),
}


def rows_of(part: str, count: int = 40, pair: bool = False) -> Rows:
    other = {"other": "and this"} if pair else {}
    return [{"text": f'{part} "{i}", é', **other, "label": ("no", "yes", "maybe")[i % 3]} for i in range(count)]


def put(folder: Path, suffix: str = ".jsonl", **parts: Rows | bytes) -> FilesOptions:
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for part, rows in ({"train": rows_of("train"), "test": rows_of("test")} | parts).items():
        path = folder / f"{part}{suffix}"
        path.write_bytes(rows if isinstance(rows, bytes) else FORMATS[suffix](rows))
        paths[f"{part}_file"] = str(path)
    return FilesOptions(**paths)


def texts(part: Any) -> list[str]:
    return [bytes(ids).decode(errors="ignore") for ids in part["input_ids"]]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same(tmp_path: Path, suffix: str) -> None:
    task = files_task(put(tmp_path / "d", suffix))
    assert (task.info.label_names, task.info.vocab_size) == (("maybe", "no", "yes"), 256)
    dataset = load(task, tmp_path, max_seq_len=11)
    assert texts(dataset["test"]) == [row["text"].encode()[:11].decode(errors="ignore") for row in rows_of("test")]
    assert dataset["test"]["labels"][:4] == [1, 2, 0, 1]
    assert part_statistics(dataset["test"]).classes == {"maybe": 13, "no": 14, "yes": 13}


def test_validation_is_held_out_by_the_seed_from_each_class(tmp_path: Path) -> None:
    rows = rows_of("train", 60) + [{"text": f"rare {i}", "label": "rare"} for i in range(2)]
    rows.append({"text": "only", "label": "once"})
    task = files_task(put(tmp_path / "d", train=rows))
    found = [load(task, tmp_path, seed=seed) for seed in (0, 1)]
    for dataset in found:
        assert part_statistics(dataset["validation"]).classes == {"maybe": 2, "no": 2, "once": 0, "rare": 1, "yes": 2}
        assert sorted(texts(dataset["train"]) + texts(dataset["validation"])) == sorted(row["text"] for row in rows)
    assert texts(found[0]["validation"]) != texts(found[1]["validation"])


def test_without_a_test_file_the_same_examples_are_held_out_for_every_seed(tmp_path: Path) -> None:
    rows = rows_of("train", 60)
    options = replace(put(tmp_path / "d", train=[*rows, *rows[:5]]), test_file=None)
    task = files_task(options)
    found = [load(task, tmp_path, seed=seed) for seed in (0, 1)]
    for dataset in found:
        assert part_statistics(dataset["test"]).classes == {"maybe": 2, "no": 2, "yes": 2}
        assert part_statistics(dataset["test"]).notes == ["held out of train, because no test_file is given"]
        assert sorted(text for part in dataset.values() for text in texts(part)) == sorted(row["text"] for row in rows)
    assert texts(found[0]["test"]) == texts(found[1]["test"])
    assert texts(found[0]["validation"]) != texts(found[1]["validation"])
    held_out = set(texts(found[0]["test"]))
    assert {words for (words,), _ in task.labelled_texts("test")} == held_out
    assert {words for (words,), _ in task.labelled_texts("train")} == {row["text"] for row in rows} - held_out
    # A tokenizer is made from these.
    assert {*task.training_texts()} == {row["text"] for row in rows} - held_out


def test_without_a_test_file_a_validation_file_is_used_whole(tmp_path: Path) -> None:
    options = put(tmp_path / "d", train=rows_of("train", 60), validation=rows_of("validation", 5))
    dataset = load(files_task(replace(options, test_file=None)), tmp_path)
    assert texts(dataset["validation"]) == [row["text"] for row in rows_of("validation", 5)]
    assert [len(dataset[part]) for part in ("train", "test")] == [54, 6]
    # The same two files in other roles are another data set.
    other = replace(options, test_file=options.validation_file, validation_file=None)
    assert len(load(files_task(other), tmp_path)["test"]) == 5


def test_a_validation_file_is_used_whole(tmp_path: Path) -> None:
    options = put(tmp_path / "d", validation=rows_of("validation", 5))
    one, other = (load(files_task(options), tmp_path, seed=seed) for seed in (0, 1))
    assert texts(one["validation"]) == [row["text"] for row in rows_of("validation", 5)]
    assert len(one["train"]) == 40
    assert one["train"].cache_files == other["train"].cache_files  # the seed changes nothing


def test_repetitions_are_dropped_from_train_and_counted(tmp_path: Path) -> None:
    train = [*rows_of("train", 9), rows_of("test")[3], rows_of("train")[0], rows_of("train")[0]]
    dataset = load(files_task(put(tmp_path / "d", train=train)), tmp_path)
    both = texts(dataset["train"]) + texts(dataset["validation"])
    assert sorted(both) == [row["text"] for row in rows_of("train", 9)]
    assert part_statistics(dataset["train"]).notes == [
        "dropped 1 examples that are in another part too and 2 that repeat another of train"
    ]


def test_pairs(tmp_path: Path) -> None:
    files = put(tmp_path / "d", train=rows_of("train", pair=True), test=rows_of("test", pair=True))
    options = FilesOptions(train_file=files.train_file, test_file=files.test_file, other_text_column="other")
    task = files_task(options)
    assert task.info.columns == ("input_ids", "other_input_ids")
    assert bytes(load(task, tmp_path)["test"][0]["other_input_ids"]) == b"and this"
    with pytest.raises(UserError, match="must differ"):
        files_task(FilesOptions(train_file="a", text_column="x", label_column="x"))


def test_a_whole_number_is_the_same_label_in_every_format_and_spelling(tmp_path: Path) -> None:
    train = put(tmp_path / "a", train=[{"text": f"train {i}", "label": i % 3 - 1} for i in range(9)]).train_file
    floats = [{"text": f"test {i}", "label": float(i % 3 - 1)} for i in range(9)]
    for suffix in FORMATS:
        options = replace(put(tmp_path / "b", suffix, test=floats), train_file=train)
        assert load(files_task(options), tmp_path)["test"]["labels"][:4] == [0, 1, 2, 0]
    names = [{"text": "a", "label": "v1.0"}, {"text": "b", "label": "1.50"}, {"text": "c", "label": "07"}]
    assert files_task(put(tmp_path / "c", ".csv", train=names)).info.label_names == ("07", "1.50", "v1.0")


@pytest.mark.parametrize(
    ("labels", "names"),
    [([10, 9, 10], ("9", "10")), ([True, False, True], ("false", "true")), ([1.0, 0.0, 1.0], ("0", "1"))],
)
def test_labels_that_are_no_strings(tmp_path: Path, labels: list[Any], names: tuple[str, ...]) -> None:
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(labels)]
    for suffix in (".jsonl", ".parquet"):
        assert files_task(put(tmp_path / "d", suffix, train=rows, test=rows)).info.label_names == names


def save_tokenizer(folder: Path, vocabulary: dict[str, int]) -> Path:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    words = ["[UNK]", "train", "test", *map(str, range(400))]
    return save_tokenizer(tmp_path / "tokenizer", {word: i for i, word in enumerate(words)})


def test_a_tokenizer(tmp_path: Path, tokenizer_folder: Path) -> None:
    files = put(tmp_path / "d")
    options = FilesOptions(train_file=files.train_file, test_file=files.test_file, tokenizer=str(tokenizer_folder))
    task = files_task(options)
    assert task.info.vocab_size == 403
    dataset = load(task, tmp_path)
    assert dataset["test"][7]["input_ids"] == [2, 0, 10, 0, 0]
    assert dataset["test"].features["input_ids"].feature.dtype == "int16"
    assert task.decode([2, 10]) == "test 7"
    bytes_instead = load(files_task(files), tmp_path)
    assert bytes_instead["test"].cache_files != dataset["test"].cache_files
    with pytest.raises(UserError, match="the text is empty"):
        task.encode(" \n\t")
    with pytest.raises(UserError, match="tokenizer 'no/such' is neither a folder"):
        files_task(FilesOptions(train_file=files.train_file, test_file=files.test_file, tokenizer="no/such"))


def test_the_ids_of_a_tokenizer_may_have_gaps(tmp_path: Path) -> None:
    folder = save_tokenizer(tmp_path / "gaps", {"[UNK]": 0, "train": 3, "test": 300})
    task = files_task(replace(put(tmp_path / "d"), tokenizer=str(folder)))
    assert task.info.vocab_size == 301
    assert load(task, tmp_path)["test"][0]["input_ids"][0] == 300


def test_a_lone_surrogate_is_refused_with_its_place_by_a_tokenizer_too(tmp_path: Path, tokenizer_folder: Path) -> None:
    files = put(tmp_path / "d", train=jsonl([*rows_of("train", 2), {"text": "a \ud800", "label": "no"}]))
    with pytest.raises(UserError, match=r"train\.jsonl, line 3: the text has a lone surrogate at character 2"):
        load(files_task(replace(files, tokenizer=str(tokenizer_folder))), tmp_path)


GOOD = b'{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n'


@pytest.mark.parametrize(
    ("suffix", "content", "word"),
    [
        (".jsonl", GOOD + b"{", "line 3: not a JSON object"),
        (".jsonl", GOOD + b"[]", "line 3: not a JSON object"),
        (".jsonl", GOOD + b'{"txt": "c", "label": "x"}', "line 3: no column 'text'; did you mean 'txt'"),
        (".jsonl", GOOD + b'{"text": "", "label": "x"}', "line 3: column 'text' is empty"),
        (".jsonl", GOOD + b'{"text": " \\n\\u00a0", "label": "x"}', "line 3: column 'text' is empty"),
        (".csv", b"text,label\na,x\n  ,y\n", "line 3: column 'text' is empty"),
        (".jsonl", GOOD + b'{"text": 3, "label": "x"}', "line 3: column 'text' is no text but int"),
        (".jsonl", GOOD + b'{"text": "c", "label": null}', "line 3: column 'label' must be a string or a whole number"),
        (".jsonl", GOOD + b'{"text": "c", "label": 0.5}', "line 3: column 'label' must be"),
        (".jsonl", GOOD + b'{"text": "\xff", "label": "x"}', "line 3: byte 10 is not UTF-8"),
        (".jsonl", GOOD + b'{"text": "\\ud800", "label": "x"}', "line 3: the text has a lone surrogate"),
        (".jsonl", GOOD + b'{"text": "c", "label": "x", "text": "d"}', "line 3: the key 'text' comes twice"),
        (".csv", b"text,label,text\na,x,b\n", "line 1: 2 columns are named 'text'"),
        (".tsv", b"label\ttext\tlabel\nx\tb\ty\n", "line 1: 2 columns are named 'label'"),
        (".parquet", parquet_of_columns("text", "label", "text"), "its schema: 2 columns are named 'text'"),
        (".jsonl", b"", "has no examples"),
        (".jsonl", GOOD[:28], "column 'label' has 1 label; at least 2"),
        (".csv", b"", "is empty; its first line must be the names"),
        (".csv", b"text,label\n", "has no examples"),
        (".csv", b"text;label\na;x\n", "line 1: semicolons separate the columns, but a .csv file has commas; save"),
        (".csv", b"text\tlabel\na\tx\n", "line 1: tabs separate the columns, but a .csv file has commas; save it with"),
        (
            ".tsv",
            b"id,label,text\n",
            "commas separate the columns, but a .tsv file has tabs; save it with those, or name",
        ),
        (".csv", b"a;b\na;x\n", "line 1: no column 'text'"),
        (".csv", "text,label\na,x\n".encode("utf-16"), "is not UTF-8 text but UTF-16; save it as UTF-8"),
        (".jsonl", "{}\n".encode("utf-16-le"), "is not UTF-8 text but binary or UTF-16; save it as UTF-8"),
        (".csv", b"\x89PNG\r\n\x1a\n", "line 1: byte 0 is not UTF-8; the file must be UTF-8 text with the names"),
        (".csv", b"text,label\na,\n", "line 2: column 'label' is empty; --skip_bad_rows skips such rows"),
        (".csv", b"text,label\na,x\nb\n", "line 3: 1 column, but line 1 names 2"),
        (".csv", b'text,label\na,x\n"b,y\n', "line 3: not CSV"),
        (".csv", b"text,label\na,x\n\xe9,y\n", "line 3: byte 0 is not UTF-8"),
        (".tsv", b"text\tlabel\na\tx\nb\ty\tz\n", "line 3: 3 columns, but line 1 names 2"),
        (".parquet", b"PAR1 and no more", "after row 0: not a whole Parquet file"),
        (".parquet", b"", "after row 0: not a whole Parquet file"),
        (".jsonl.gz", gzip.compress(GOOD, mtime=0)[:-6], "not a whole .gz file"),
        (".csv.xz", b"plain", "not a whole .xz file"),
    ],
)
def test_mistakes_in_a_file_are_told_with_their_place(tmp_path: Path, suffix: str, content: bytes, word: str) -> None:
    with pytest.raises(UserError) as caught:
        load(files_task(put(tmp_path / "d", suffix, train=content)), tmp_path)
    assert word in str(caught.value)
    assert f"train{suffix}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.glob(".rmaat_cache/files-*") if path.is_dir()]


def test_what_leaves_a_part_empty_is_told_with_its_file(tmp_path: Path) -> None:
    same = replace(put(tmp_path / "a"), test_file=str(tmp_path / "a" / "train.jsonl"))
    both = put(
        tmp_path / "b", train=rows_of("a", 3) + rows_of("b", 3), validation=rows_of("a", 3), test=rows_of("b", 3)
    )
    for options, word in (
        (
            same,
            r"train\.jsonl: no example is left to train on: all 40 were dropped because they are also in test_file "
            r"\S+train\.jsonl; give a train_file with other examples",
        ),
        (
            both,
            r"all 6 were dropped because .* in validation_file \S+validation\.jsonl or test_file \S+test\.jsonl; ",
        ),
        (
            put(tmp_path / "c", train=rows_of("a", 3)),
            r"train\.jsonl: no label has two examples, so .* give a validation_",
        ),
        (
            put(tmp_path / "d", train=rows_of("a", 3) * 2),
            r"no label has two examples \(3 are repeated, or belong",
        ),
    ):
        with pytest.raises(UserError, match=word):
            load(files_task(options), tmp_path)


def test_a_label_never_seen_in_training(tmp_path: Path) -> None:
    rows = [*rows_of("test", 4), {"text": "t", "label": "new"}]
    for options in (put(tmp_path / "a", test=rows), put(tmp_path / "b", validation=rows)):
        with pytest.raises(UserError, match=r"\.jsonl, line 5: the label 'new' is not in .*train\.jsonl"):
            load(files_task(options), tmp_path)
    assert not [path for path in tmp_path.glob(".rmaat_cache/files-*") if path.is_dir()]


def test_other_options_are_another_data_set(tmp_path: Path) -> None:
    rows = [{"text": f"one {i}", "body": f"two {i}", "label": i % 2} for i in range(30)]
    files = put(tmp_path / "d", train=rows[:20], test=rows[20:])
    assert texts(load(files_task(files), tmp_path)["test"])[0] == "one 20"
    assert texts(load(files_task(replace(files, text_column="body")), tmp_path)["test"])[0] == "two 20"


def test_mistakes_in_the_options(tmp_path: Path) -> None:
    options = put(tmp_path)
    for wrong, word in (
        (FilesOptions(), "the task files needs train_file"),
        (FilesOptions(train_file="none.jsonl"), "train_file none.jsonl is missing"),
        (put(tmp_path / "x", suffix=".jsonl", train=b""), "has no examples"),
    ):
        with pytest.raises(UserError, match=word):
            task_of("files", wrong)
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"a\.txt: the name must end in one of \.jsonl, \.csv, \.tsv, \.parquet"):
        files_task(FilesOptions(train_file=str(tmp_path / "a.txt"), test_file=options.test_file))
    with pytest.raises(UserError, match="train_file: no setting of the task imdb; it has none"):
        task_of("imdb", FilesOptions(train_file="a.jsonl"))


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    options = put(tmp_path / "d")
    assert files_task(options).info.label_names == ("maybe", "no", "yes")
    put(
        tmp_path / "d",
        train=[{"text": str(i), "label": i % 2} for i in range(9)],
        test=GOOD.replace(b'"x"', b"0").replace(b'"y"', b"1"),
    )
    task = files_task(options)
    assert task.info.label_names == ("0", "1")
    assert len(load(task, tmp_path)["test"]) == 2


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".jsonl", b"\n" + GOOD.replace(b"\n", b"\r\n \n") + b"\n\n"),
        (".csv", b"text,label\r\na,x\r\nb,y\r\n\r\n\r\n"),
        (".tsv", b"text\tlabel\na\tx\nb\ty\n\n\n"),
    ],
)
def test_blank_lines_at_the_end_are_passed_over(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert [row for _, row in read_records(path, ["text", "label"])] == [
        {"text": "a", "label": "x"},
        {"text": "b", "label": "y"},
    ]


def test_columns_that_are_not_asked_for_may_share_a_name(tmp_path: Path) -> None:
    assert len(load(files_task(put(tmp_path / "d", ".csv", test=b"text,label,,\na,no,1,2\n")), tmp_path)["test"]) == 1


@given(content=st.binary(max_size=60), suffix=st.sampled_from([*FORMATS]))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    try:
        rows = list(read_records(path, ["text"]))
    except UserError as error:
        message = str(error)
    else:
        assert all("text" in row for _, row in rows)
        return
    assert message.startswith(str(path))


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=9), min_size=2, max_size=9, unique=True)
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_json_and_parquet(tmp_path: Path, texts: list[str]) -> None:
    rows = [{"text": text, "label": str(i)} for i, text in enumerate(texts)]
    for suffix in (".jsonl", ".parquet", ".csv"):
        if suffix == ".csv" and any(character in text for text in texts for character in "\r\n\0"):
            continue
        path = tmp_path / f"a{suffix}"
        path.write_bytes(FORMATS[suffix](rows))
        assert [row["text"] for _, row in read_records(path, ["text", "label"])] == texts


@pytest.mark.parametrize("suffix", [".jsonl", ".csv.xz"])
def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(text, "LONGEST_LINE", 100)
    options = put(tmp_path, suffix, train=[{"text": "a", "label": "x"}, {"text": "b" * 100, "label": "y"}])
    with pytest.raises(UserError, match=rf"train{suffix}, line .: longer than 100 bytes"):
        files_task(options)


def test_few_long_documents_of_a_parquet_file_are_in_memory_at_a_time(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 300), pa.array(["a" * 2**20]))
    table = pa.table({"text": texts, "label": ["x"] * 300})
    pq.write_table(table, tmp_path / "a.parquet", dictionary_pagesize_limit=2**22, store_schema=False)
    before = pa.total_allocated_bytes()
    sizes = [pa.total_allocated_bytes() - before for _ in read_records(tmp_path / "a.parquet", ["text", "label"])]
    assert len(sizes) == 300
    assert max(sizes) < 150 * 2**20


def test_code_in_the_folder_of_a_tokenizer_is_not_run(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tokenizer_folder / "tokenizer_config.json"
    names = {"AutoTokenizer": ["code.Attack", "code.Attack"]}
    config.write_text(json.dumps({"tokenizer_class": "Attack", "auto_map": names}))
    (tokenizer_folder / "code.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')\nclass Attack: pass\n")
    # transformers would ask whether to run it.
    monkeypatch.setattr("builtins.input", lambda question: "y")
    with pytest.raises(UserError, match="neither a folder with a tokenizer nor"):
        files_task(replace(put(tmp_path / "d"), tokenizer=str(tokenizer_folder)))
    assert not (tmp_path / "mark").exists()


BAD: dict[str, tuple[bytes, int]] = {
    ".jsonl": (
        b'{\n[]\n{"text": "", "label": "no"}\n{"text": "c", "label": null}\n{"text": "\xff", "label": "no"}\n',
        5,
    ),
    ".csv": (b'"open,no\r\n\r\n"x" y,no\r\none\r\n\xe9,no\r\n"a\n\xe9",no\r\n', 5),
    ".tsv": (b"one\n\n\xe9\tno\n\tno\n", 3),
}


@pytest.mark.parametrize("suffix", BAD)
def test_malformed_rows_are_skipped_and_counted_if_asked_for(tmp_path: Path, suffix: str) -> None:
    bad, count = BAD[suffix]
    good = FORMATS[suffix](rows_of("train"))
    header = 0 if suffix == ".jsonl" else good.index(b"\n") + 1
    rows = good[header:].splitlines(keepends=True)
    spoilt = good[:header] + b"".join([*rows[:9], bad, *rows[9:]])
    options = put(tmp_path / "d", suffix, train=spoilt, test=FORMATS[suffix](rows_of("test")) + bad)
    with pytest.raises(UserError, match=r"train\.\w+, line 1\d: "):
        files_task(options)
    dataset = load(files_task(replace(options, skip_bad_rows=True)), tmp_path)
    assert sorted(texts(dataset["train"]) + texts(dataset["validation"])) == sorted(
        row["text"] for row in rows_of("train")
    )
    (note,) = part_statistics(dataset["train"]).notes
    first = 10 if suffix == ".jsonl" else 11
    assert note.startswith(f"skipped {count} malformed rows of train{suffix}; the first: line {first}: ")
    assert not part_statistics(dataset["validation"]).notes, "they are counted once"
    assert part_statistics(dataset["test"]).notes[0].startswith(f"skipped {count} malformed rows of test{suffix}; ")


def test_a_data_set_with_skipped_rows_serves_no_run_that_does_not_skip_them(tmp_path: Path) -> None:
    options = put(tmp_path / "d", test=jsonl(rows_of("test")) + b"[]\n")
    load(files_task(replace(options, skip_bad_rows=True)), tmp_path)
    with pytest.raises(UserError, match=r"test\.jsonl, line 41: "):
        load(files_task(options), tmp_path)


def test_rows_that_cannot_be_encoded_are_skipped_too(tmp_path: Path) -> None:
    rows = [*rows_of("train", 30), {"text": "a \ud800", "label": "no"}]
    options = replace(put(tmp_path / "d", train=jsonl(rows), validation=rows_of("v", 3)), skip_bad_rows=True)
    dataset = load(files_task(options), tmp_path)
    assert len(dataset["train"]) == 30
    assert "skipped 1 malformed row of train.jsonl; the first: line 31: " in part_statistics(dataset["train"]).notes[0]


def test_what_is_no_malformed_row_is_not_skipped(tmp_path: Path) -> None:
    unknown = [*rows_of("test"), {"text": "t", "label": "new"}]
    for parts, word in (
        ({"test": unknown}, "the label 'new' is not in"),
        (
            {"train": b'{"txt": "a"}\n[]\n'},
            "has no examples: skipped 2 malformed rows of .*; the first: line 1: no column",
        ),
    ):
        with pytest.raises(UserError, match=word):
            load(files_task(replace(put(tmp_path / "d", **parts), skip_bad_rows=True)), tmp_path)
    (tmp_path / "e.csv").write_bytes(b"txt,label\na,x\n")
    with pytest.raises(UserError, match="line 1: no column 'text'"):
        files_task(
            FilesOptions(train_file=str(tmp_path / "e.csv"), test_file=str(tmp_path / "e.csv"), skip_bad_rows=True)
        )


def put_folder(folder: Path, texts_by_label: dict[str, list[str]]) -> str:
    for label, contents in texts_by_label.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i, content in enumerate(contents):
            (folder / label / f"{i:02}.txt").write_text(content)
    return str(folder)


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    contents = {label: [f"{label} {i}" for i in range(9)] for label in ("10", "9", "90")}
    train = put_folder(tmp_path / "train", contents)
    (tmp_path / "train" / "9" / ".hidden.txt").write_text("no")
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "train" / "9" / "notes.pdf").write_text("no")
    (tmp_path / "train" / "9" / "deep").mkdir()
    (tmp_path / "train" / "9" / "deep" / "a.md.gz").write_bytes(gzip.compress(b"packed"))
    (tmp_path / "train" / "10" / "b.TXT.xz").write_bytes(lzma.compress(b"small"))
    test = put_folder(tmp_path / "test", {"9": ["one"], "10": ["two"]})
    options = FilesOptions(train_file=train, test_file=test)
    task = files_task(options)
    assert task.info.label_names == ("9", "10", "90")
    dataset = load(task, tmp_path)
    expected = [*contents["10"], *contents["9"], *contents["90"], "packed", "small"]
    assert sorted(texts(dataset["train"]) + texts(dataset["validation"])) == sorted(expected)
    assert (texts(dataset["test"]), dataset["test"]["labels"][:]) == (["two", "one"], [1, 0])
    # The same texts in the same order under another label are another data set.
    (tmp_path / "test" / "9").rename(tmp_path / "test" / "90")
    assert load(files_task(options), tmp_path)["test"]["labels"][:] == [1, 2]


def test_mistakes_in_a_folder(tmp_path: Path) -> None:
    train = put_folder(tmp_path / "train", {label: [f"{label} {i}" for i in range(4)] for label in "ab"})
    good = FilesOptions(train_file=train, test_file=train)
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "a.txt").write_text("a")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    for changes, word in (
        ({"train_file": str(flat)}, r"train_file: the folder \S+flat has no sub-folders; it needs one for each"),
        ({"test_file": str(tmp_path / "empty")}, r"test_file: the folder \S+a has no text; names must end in \.txt"),
        ({"other_text_column": "b"}, "which has no pairs"),
        ({"problem_type": "regression"}, "which has one class for each text"),
    ):
        with pytest.raises(UserError, match=word):
            files_task(replace(good, **changes))
    (tmp_path / "train" / "a" / "00.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match=r"train, a/00\.txt: .*not UTF-8"):
        files_task(good)
    (tmp_path / "train" / "a" / "00.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"train, a/00\.txt: the text is empty"):
        files_task(good)
    other = put_folder(tmp_path / "other", {"a": ["x"], "c": ["y"]})
    with pytest.raises(UserError, match=r"other, c/00\.txt: the label 'c' is not in"):
        load(files_task(replace(good, test_file=other, skip_bad_rows=True)), tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_blank_lines_are_skipped(tmp_path: Path, suffix: str) -> None:
    rows = FORMATS[suffix](rows_of("test")).replace(b"\r\n", b"\r\n\r\n")
    dataset = load(files_task(put(tmp_path / "d", suffix, test=rows)), tmp_path)
    assert texts(dataset["test"]) == [row["text"] for row in rows_of("test")]
    assert not part_statistics(dataset["test"]).notes


def test_labels_that_look_like_several_are_noted(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": f"a|{i % 2}"} for i in range(9)]
    files = put(tmp_path / "d", train=rows, test=[{"text": "x", "label": "a|0"}])
    note = "every label has a '|'; the recipe files_multi_label reads such a label as several"
    assert note in part_statistics(load(files_task(files), tmp_path)["train"]).notes
    several = replace(files, problem_type="multi_label_classification")
    assert not part_statistics(load(files_task(several), tmp_path)["train"]).notes
    one_without = put(tmp_path / "e", train=[*rows, {"text": "t", "label": "b"}], test=[{"text": "x", "label": "b"}])
    assert not part_statistics(load(files_task(one_without), tmp_path)["train"]).notes


def test_the_name_of_a_recipe_is_no_task(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"'files_multi_label' is a recipe of the task files, .* the task is: files --prob"
    ):
        task_of("files_multi_label")
    with pytest.raises(UserError, match=r"'paper/listops' is a recipe of the task listops"):
        task_of("paper/listops")
