"""The label column of own files: what is read, what is refused, how it is stored and held out."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rmaat.errors import UserError
from rmaat.problems import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from rmaat.tasks import load, task_of
from rmaat.tasks.collate import Collator
from rmaat.tasks.files import files_task
from rmaat.tasks.labels import LABEL_COLUMNS
from rmaat.tasks.options import FilesOptions
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.statistics import dataset_statistics, label_summary

SETS = LABEL_COLUMNS[MULTI_LABEL]
NUMBERS = LABEL_COLUMNS[REGRESSION]


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (["b", "a", "b"], ("a", "b")),
        ("b|a", ("a", "b")),
        ("a", ("a",)),
        ("", ()),
        ([], ()),
        (["1.0", 2, True], ("1", "2", "true")),
        (3, ("3",)),
        ("a||b", None),
        ("|", None),
        (["a|b"], None),
        ([""], None),
        ([None], None),
        ([["a"]], None),
        (None, None),
        (0.5, None),
    ],
)
def test_sets_of_labels(value, label):
    assert SETS.parse(value) == label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("1.50", 1.5),
        (" -2e3 ", -2000.0),
        (".5", 0.5),
        (7, 7.0),
        (1e-300, 1e-300),
        ("3,5", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        (float("nan"), None),
        (10**400, None),
        (1e39, None),
        (True, None),
        ("", None),
        (None, None),
        ([1.0], None),
    ],
)
def test_numbers(value, label):
    assert NUMBERS.parse(value) == label


def write(path: Path, rows: list[dict]) -> str:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        lines = ["text,label"]
        lines += [f"{r['text']},{'|'.join(r['label']) if isinstance(r['label'], list) else r['label']}" for r in rows]
        path.write_text("\n".join(lines) + "\n")
    return str(path)


ROWS = {
    MULTI_LABEL: [{"text": f"text {i}", "label": [["a"], ["b", "c"], [], ["a", "c"]][i % 4]} for i in range(40)],
    REGRESSION: [{"text": f"text {i}", "label": i / 4 - 2} for i in range(40)],
}


@pytest.mark.parametrize("problem", [MULTI_LABEL, REGRESSION])
@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_all_formats_give_the_same_data(tmp_path, problem, suffix):
    rows = ROWS[problem]
    train = write(tmp_path / f"train{suffix}", rows)
    test = write(tmp_path / f"test{suffix}", [{**row, "text": f"other {row['text']}"} for row in rows])
    options = FilesOptions(train_file=train, test_file=test, problem_type=problem)
    task = files_task(options)
    assert task.info.problem_type == problem
    assert task.info.label_names == (("a", "b", "c") if problem == MULTI_LABEL else ("label",))
    data = load(task, tmp_path, 0, 64)
    assert (len(data["train"]), len(data["validation"])) == (36, 4)
    by_text = {row["text"].encode(): row["label"] for row in rows}
    reader = TokenReader(data["train"].select([5, 0, 9]))
    for index, example in enumerate(reader.__getitems__([0, 1, 2])):
        expected = by_text[example["input_ids"].tobytes()]
        if problem == MULTI_LABEL:
            expected = [float(name in expected) for name in "abc"]
        np.testing.assert_array_equal(example["labels"], expected)
        np.testing.assert_array_equal(reader.labels[index], expected)
    batch = Collator(8)(reader.__getitems__([0, 1]))
    assert batch["labels"].dtype.is_floating_point
    assert batch["labels"].shape == ((2, 3) if problem == MULTI_LABEL else (2,))
    statistics = dataset_statistics(data)["test"]
    if problem == MULTI_LABEL:
        assert statistics.classes == {"a": 20, "b": 10, "c": 20}
        assert statistics.numbers is None
    else:
        assert statistics.classes == {}
        assert label_summary(statistics) == "-2 to 7.75, mean 2.875, deviation 2.88585"
    # Another problem type is another data set.
    assert task.settings()["problem_type"] == problem


def test_the_settings_of_classes_stay_those_of_earlier_versions(tmp_path):
    train = write(tmp_path / "a.jsonl", [{"text": str(i), "label": i % 2} for i in range(8)])
    options = {"train_file": train, "test_file": train}
    plain = files_task(FilesOptions(**options)).settings()
    assert "problem_type" not in plain
    assert files_task(FilesOptions(**options, problem_type=SINGLE_LABEL)).settings() == plain


@pytest.mark.parametrize(
    ("problem", "labels", "said"),
    [
        (MULTI_LABEL, [[], []], "has no label in any row"),
        (MULTI_LABEL, [["a"], None], r"line 2: column 'label' must be a list of labels.*found None"),
        (None, [0.5, 1.5], r"whole number, found 0\.5; problem_type 'regression' is for numbers"),
        (None, [["a"], ["b"]], r"found \['a'\]; problem_type 'multi_label_classification' is for lists"),
        (REGRESSION, [1, "1.0"], "has the same number in each row"),
        (REGRESSION, [1, "two"], r"line 2: column 'label' must be a finite number, found 'two'"),
    ],
)
def test_mistakes_name_the_place(tmp_path, problem, labels, said):
    train = write(tmp_path / "a.jsonl", [{"text": str(i), "label": label} for i, label in enumerate(labels)])
    with pytest.raises(UserError, match=said):
        files_task(FilesOptions(train_file=train, test_file=train, problem_type=problem))


def test_a_label_that_train_lacks_is_a_mistake(tmp_path):
    train = write(tmp_path / "a.jsonl", ROWS[MULTI_LABEL])
    test = write(tmp_path / "b.jsonl", [{"text": "x", "label": ["a", "d"]}])
    task = files_task(FilesOptions(train_file=train, test_file=test, problem_type=MULTI_LABEL))
    with pytest.raises(UserError, match=r"line 1: the label 'd' is not in"):
        load(task, tmp_path, 0, 64)


def test_only_own_files_have_a_problem_type():
    with pytest.raises(UserError, match="problem_type: no setting of the task listops"):
        task_of("listops", FilesOptions(problem_type=REGRESSION))
