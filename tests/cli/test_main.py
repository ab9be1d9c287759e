"""The command line itself: help at once, mistakes in one line."""

import os
import re
import runpy
import subprocess
import sys
import time
from dataclasses import fields
from importlib import metadata

import pytest

from rmaat.cli import compare
from rmaat.cli.main import VERBS, main
from rmaat.cli.parser import Parser
from rmaat.errors import UserError
from rmaat.machine.provenance import provenance
from rmaat.tasks import TASKS
from rmaat.training.config import RunConfig


@pytest.mark.parametrize("verb", ["", *VERBS, *(f"compare {name}" for name in compare.VERBS)])
def test_help_answers_without_heavy_imports(verb):
    words = [*verb.split(), "--help"]
    script = (
        f"import sys; from rmaat.cli.main import main\n"
        f"try: main({words!r})\n"
        f"except SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'datasets', 'scipy', 'matplotlib', 'numba', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    started = time.process_time()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert time.process_time() - started < 1


@pytest.mark.parametrize("verb", ["train", "simulate"])
def test_help_says_what_the_letters_of_sources_stand_for(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    description, settings = " ".join(capsys.readouterr().out.split()).split("options:", 1)
    used = set(re.findall(r"\[([A-Z])[]:; ]", settings))
    assert {"P", "C"} < used
    assert set(re.findall(r"\[([A-Z])\] (?:the|its|this|Kozachkov)", description)) == used


def test_the_overview_names_every_verb(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    for verb in VERBS:
        assert f"  {verb} " in told


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rmaat {metadata.version('rmaat')}\n"


@pytest.mark.parametrize("verb", ["train", "simulate", "predict", "compare recall"])
def test_the_help_has_a_line_a_flag(verb, capsys):
    with pytest.raises(SystemExit):
        main([*verb.split(), "--help"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    names = [line.split()[0] for line in lines]
    assert len(names) == len(set(names)) > 1
    assert all(1 < len(line.split()) <= 24 for line in lines), "the name, at most 20 words, and the default"


def test_the_help_of_train_begins_with_the_published_parameters_and_has_each_setting_once(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.partition("main settings:\n")[2].splitlines()[:9]] == [
        f"--{name}"
        for name in (
            "dataset",
            "max_seq_len",
            "num_segments",
            "num_memory_tokens",
            "attention_type",
            "memory_replay_backprop",
            "astro_mem",
            "wandb",
            "wandb_run_name",
        )
    ]
    names = re.findall(r"^  --(\w+)", text, re.MULTILINE)
    assert {field.name for field in fields(RunConfig)} <= set(names)


def test_an_unknown_verb_is_answered_with_the_nearest(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert main(["compare", "acuracy"]) == 2
    assert "did you mean 'accuracy'" in capsys.readouterr().err
    assert main(["compare"]) == 2
    assert "usage: rmaat compare VERB" in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.parametrize(
    ("setting", "flags", "told"),
    [
        (
            "label_column: 2",
            [],
            "'{}': label_column is the whole number 2; it must be text or null, as in label_column: '2'",
        ),
        ("bf16: maybe", ["--seed", "1"], "'{}': bf16 is 'maybe'; it must be true, false or 'auto'"),
        ("max_steps: null", [], "'{}': max_steps is null; it must be a whole number"),
        ("output_dir: null", [], "'{}': output_dir is null; it must be text"),
        ("seed: 1", ["--max_steps", "x"], "--max_steps is 'x'; it must be a whole number"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_with_its_place(tmp_path, capsys, setting, flags, told):
    config = tmp_path / "run.yaml"
    config.write_text(setting)
    assert main(["train", "--config", str(config), *flags]) == 2
    assert capsys.readouterr().err == f"rmaat: error: {told.format(config)}\n"
    assert main(["data", "listops", "--num_train", "x"]) == 2
    assert capsys.readouterr().err == "rmaat: error: --num_train is 'x'; it must be a whole number or null\n"


@pytest.mark.parametrize(
    ("verb", "needed"),
    [
        ("evaluate", "--model: folder of a finished run"),
        ("predict", "--model: folder of a finished run"),
        ("simulate", "--output: folder for traces and figures; made if missing"),
        ("compare accuracy", "--output: folder of the grid; made if missing"),
        ("compare memory", "--output: folder for JSON and figure; made if missing"),
        ("compare table", "its folder, the --output of `rmaat compare accuracy`"),
        ("data", f"its task, one of: {', '.join(TASKS.names())}"),
        ("list", "one of: attention, models, recipes, tasks"),
    ],
)
def test_a_missing_argument_is_told_with_what_it_is(capsys, verb, needed):
    assert main(verb.split()) == 2
    assert capsys.readouterr().err == f"rmaat: error: rmaat {verb} needs {needed}\n"


def test_all_missing_arguments_are_told():
    parser = Parser(prog="rmaat verb")
    parser.add_argument("--first", required=True, help="this")
    parser.add_argument("second", help="that")
    with pytest.raises(UserError, match=r"^rmaat verb needs --first: this, and its second, that$"):
        parser.parse_args([])


def test_an_interrupt_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("rmaat.cli.list.run", lambda arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["list", "tasks"]) == 130
    assert capsys.readouterr().err == "rmaat: interrupted\n"


def test_a_module_run_records_a_command_that_can_be_run(monkeypatch):
    recorded = []
    monkeypatch.setattr("rmaat.cli.main.entry_point", lambda: recorded.append(provenance()["command"]))
    monkeypatch.setattr("sys.argv", ["-m", "train", "--output_dir", "my run"])
    runpy.run_module("rmaat", run_name="__main__", alter_sys=True)
    assert recorded == ["rmaat train --output_dir 'my run'"]


def test_a_reader_that_has_gone_ends_the_command_without_a_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "rmaat", "list", "tasks"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
