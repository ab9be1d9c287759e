"""`rmaat predict` and `rmaat evaluate` on files that a run has not seen."""

import csv
import json
from pathlib import Path

import pytest

from rmaat.cli.main import main

LABELS = ["bread, salt", "rain"]


def write_rows(path: Path, count: int, mark: str = "") -> str:
    rows = [{"text": f"{mark}{i} " + LABELS[i % 2] * (i % 9 + 1), "label": LABELS[i % 2]} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the task files that reads 64 bytes; its train file has two malformed rows."""
    folder = tmp_path_factory.mktemp("run")
    train, test = (write_rows(folder / f"{part}.jsonl", n, part) for part, n in (("train", 60), ("test", 21)))
    with Path(train).open("a") as file:
        file.write("[]\n{\n")
    settings = (
        "--dataset files --max_seq_len 64 --num_segments 4 --hidden_size 16 --num_hidden_layers 1 "
        "--num_attention_heads 2 --intermediate_size 16 --max_steps 4 --eval_steps 4 --warmup_steps 0 "
        "--per_device_train_batch_size 8 --per_device_eval_batch_size 4 --skip_bad_rows"
    )
    output = folder / "run"
    files = ["--train_file", train, "--test_file", test, "--data_dir", str(folder), "--output_dir", str(output)]
    assert main(["train", *files, *settings.split()]) == 0
    return output


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Inputs of every kind; three of nine have a mistake."""
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("letter.txt").write_text("rain and wind")
    Path("folder/long.txt").write_text("salt " * 400)
    Path("folder/bytes.txt").write_bytes(b"\xff")
    Path("folder/a.txt").write_text("wind")
    Path("rows.csv").write_text('text,number\n"rain, and ""wind""",1\nbad\nsalt,2\n')
    write_rows(Path("rows.jsonl"), 2)
    return ["letter.txt", "none.txt", "folder", "rows.csv", "rows.jsonl"]


NAMES = ["letter.txt", "folder/a.txt", "folder/long.txt", "rows.csv:2", "rows.csv:4", "rows.jsonl:1", "rows.jsonl:2"]


def test_bad_inputs_are_reported_and_the_others_printed(run, inputs, capsys):
    assert main(["predict", "--model", str(run), *inputs]) == 2
    out, err = capsys.readouterr()
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines] == NAMES
    assert all(label in LABELS and 0.5 <= float(probability) <= 1 for _, label, probability in lines)
    assert err.splitlines() == [
        "rmaat: error: none.txt: cannot be read: No such file or directory",
        "rmaat: error: folder/bytes.txt: not UTF-8 text: invalid start byte at byte 0",
        "rmaat: error: rows.csv:3: 1 column, but line 1 names 2",
        "rmaat: error: 3 of 10 inputs had no prediction",
    ]


def test_all_probabilities_are_written_in_the_order_of_the_inputs(run, inputs, capsys):
    assert main(["predict", "--model", str(run), *inputs, "--output", "out/p.jsonl"]) == 2
    assert capsys.readouterr().out == ""
    rows = [json.loads(line) for line in Path("out/p.jsonl").read_text().splitlines()]
    assert [row["name"] for row in rows] == NAMES
    for row in rows:
        assert list(row["probabilities"]) == LABELS
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        assert row["label"] == max(row["probabilities"], key=row["probabilities"].get)
    assert main(["predict", "--model", str(run), *inputs, "--output", "out/p.csv"]) == 2
    with Path("out/p.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["name", "label", "probability_bread, salt", "probability_rain"]
    for row, line in zip(rows, table, strict=True):
        assert (line["name"], line["label"]) == (row["name"], row["label"])
        assert float(line["probability_rain"]) == row["probabilities"]["rain"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["p.csv", "p.jsonl"]


def test_malformed_rows_may_be_counted_instead(run, inputs, capsys):
    assert main(["predict", "--model", str(run), "letter.txt", "rows.csv", "--skip_bad_rows"]) == 0
    assert capsys.readouterr().err == "note: skipped 1 malformed rows\n"


def test_a_text_is_read_whole_or_truncated_with_a_note(run, inputs, capsys):
    assert main(["predict", "--model", str(run), "folder/long.txt", "letter.txt"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["predict", "--model", str(run), "folder/long.txt", "letter.txt", "--truncate"]) == 0
    assert capsys.readouterr().err == "note: 1 of 2 inputs were truncated to 64 tokens, as in training\n"


def test_the_columns_of_records_may_have_other_names(run, inputs, capsys):
    Path("other.csv").write_text("id,body\n1,rain\n")
    assert main(["predict", "--model", str(run), "other.csv", "--text_column", "body"]) == 0
    assert capsys.readouterr().out.startswith("other.csv:2\t")
    assert main(["predict", "--model", str(run), "other.csv"]) == 2
    assert "error: other.csv: line 1: no column 'text'; " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--output p.txt", "--output p.txt: the name must end in .jsonl or .csv"),
        ("--output rows.csv", "--output rows.csv is an input too"),
        ("--output letter.txt/p.csv", "cannot write to the output folder letter.txt"),
        ("--other_text_column b", "--other_text_column: an example of files is one text"),
        ("--per_device_eval_batch_size 0", "--per_device_eval_batch_size must be at least 1, got 0"),
    ],
)
def test_mistakes_in_the_flags_come_before_any_prediction(run, inputs, capsys, flags, message):
    assert main(["predict", "--model", str(run), *inputs, *flags.split()]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert out == ""
    assert err.count("\n") == 1
    assert Path("rows.csv").read_text().startswith("text,number\n")


def test_an_output_inside_an_input_folder_is_no_input(run, inputs, capsys):
    for _ in range(2):
        assert main(["predict", "--model", str(run), "folder", "--output", "folder/p.jsonl"]) == 2
        assert "1 of 3 inputs" in capsys.readouterr().err
    assert len(Path("folder/p.jsonl").read_text().splitlines()) == 2


def test_another_test_file_is_measured(run, tmp_path, capsys):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["data"]["train"]["notes"][0].startswith(
        "skipped 2 malformed rows of train.jsonl; the first: line 61: "
    )
    assert main(["evaluate", "--model", str(run)]) == 0
    out, err = capsys.readouterr()
    assert f"{100 * metrics['test_accuracy']:6.2f}%   (21 examples)" in out
    assert f"{metrics['test_loss']:7.4f}" in out
    cut = metrics["data"]["test"]["lengths"]["input_ids"]["cut"]
    assert err == f"note: test: {cut} of 21 sequences were cut to 64 tokens, as in training\n"
    other = write_rows(tmp_path / "other.jsonl", 7)
    with Path(other).open("a") as file:
        file.write("[]\n")
    assert main(["evaluate", "--model", str(run), "--test_file", other]) == 0
    out, err = capsys.readouterr()
    assert "(7 examples)" in out
    assert "note: test: skipped 1 malformed row of other.jsonl; the first: line 8: not a JSON object" in err
    assert main(["evaluate", "--model", str(run), "--test_file", other, "--skip_bad_rows", "false"]) == 2
    assert f"{other}, line 8: not a JSON object" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(run), "--test_file", "none.jsonl"]) == 2
    assert "test_file none.jsonl is missing" in capsys.readouterr().err


def test_only_a_run_on_files_has_another_test_file(listops_dir, tmp_path, capsys):
    settings = (
        "--dataset listops_short --max_seq_len 64 --num_segments 4 --hidden_size 16 --max_steps 1 --test_examples 2"
    )
    output = ["--data_dir", str(listops_dir), "--output_dir", str(tmp_path / "run")]
    assert main(["train", *settings.split(), *output]) == 0
    assert main(["evaluate", "--model", str(tmp_path / "run"), "--test_file", "a.jsonl"]) == 2
    assert "test_file: only for runs of the task files; this run has the test part of listops_short" in (
        capsys.readouterr().err
    )
