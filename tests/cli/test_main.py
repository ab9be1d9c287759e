"""The command line itself: help at once, mistakes in one line."""

import os
import re
import runpy
import subprocess
import sys
import threading
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


def test_common_mistakes_are_told_without_heavy_imports(tmp_path):
    mistakes = [
        "train --dataset imbd",
        "train --recipe files --train_file missing.csv",
        "train --recipe cifar10 --num_attention_heads 5",
        *(f"{verb} --model missing x" for verb in ("predict", "explain", "generate")),
        "evaluate --model missing",
    ]
    script = (
        f"import sys; from rmaat.cli.main import main\n"
        f"assert all(main(words.split()) == 2 for words in {mistakes!r})\n"
        "heavy = {'torch', 'transformers', 'datasets', 'matplotlib', 'numba', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(mistakes)


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


@pytest.mark.parametrize("verb", ["train", "simulate", "predict", "compare recall", "search"])
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
        ("compare memory", "--output: folder of the results; made if missing"),
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


def test_on_a_terminal_an_interrupt_begins_a_line(monkeypatch, capsys):
    monkeypatch.setattr("rmaat.cli.list.run", lambda arguments: (_ for _ in ()).throw(KeyboardInterrupt("go on")))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["list", "tasks"]) == 130
    assert capsys.readouterr().err == "\nrmaat: interrupted; go on\n"


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


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (KeyError("lost"), 1, "rmaat: error: internal error: KeyError: 'lost' (set RMAAT_TRACEBACK=1 to see where)"),
        (RecursionError("deep\n\x1b"), 1, r"rmaat: error: internal error: RecursionError: deep\n\x1b (set "),
        (OSError(28, "No space left on device", "/a/b"), 2, "rmaat: error: '/a/b': No space left on device"),
        (OSError("12 requested and 3 written"), 2, "rmaat: error: 12 requested and 3 written"),
        (MemoryError(), 2, "rmaat: error: out of memory; take a smaller model"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), 2, "rmaat: error: out of memory; take"),
    ],
)
def test_an_error_that_is_left_is_one_line(error, status, line, monkeypatch, capsys):
    monkeypatch.delenv("RMAAT_TRACEBACK", raising=False)
    monkeypatch.setattr("rmaat.cli.list.run", lambda arguments: (_ for _ in ()).throw(error))
    assert main(["list", "tasks"]) == status
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1
    monkeypatch.setenv("RMAAT_TRACEBACK", "1")
    assert main(["list", "tasks"]) == status
    printed = capsys.readouterr().err
    assert printed.startswith("Traceback (most recent call last):\n")
    assert printed.splitlines()[-1].startswith(line)


FULL_DISK = """
import resource, signal, sys, torch
from safetensors.torch import save_file
from rmaat.cli import list as verb
from rmaat.cli.main import main

# Writing beyond a limit on the size of files fails as writing to a full disk does.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
tensors = {"x": torch.zeros(10**6)}
write = save_file if sys.argv[1] == "safetensors" else torch.save
verb.run = lambda arguments: write(tensors, sys.argv[2])
sys.exit(main(["list", "tasks"]))
"""


@pytest.mark.skipif(os.name == "nt", reason="limits on the size of files are those of POSIX")
@pytest.mark.parametrize("form", [pytest.param("torch", marks=pytest.mark.slow), "safetensors"])
def test_a_full_disk_is_the_users_matter(form, tmp_path):
    command = [sys.executable, "-c", FULL_DISK, form, str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("rmaat: error: a checkpoint cannot be written; the disk may be full")
    assert done.stderr.count("\n") == 1


def test_a_wrong_word_of_a_list_is_answered_with_the_nearest(capsys):
    assert main(["list", "tsks"]) == 2
    error = capsys.readouterr().err
    assert error == (
        "rmaat: error: rmaat list has no 'tsks'; did you mean 'tasks'? known: attention, models, recipes, tasks\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_steps", "9" * 5000], "--max_steps is a number of thousands of digits; it must be shorter"),
        (["--learning_rate", "1" + "0" * 400], "cannot be read: int too large"),
        (["--learning_rate", "1e400"], "learning_rate must be a finite number, not inf"),
        (["--learning_rate", "nan"], "--learning_rate is 'nan'; it must be a number"),
        (["--dataset", "a\x1b[31m\nb"], r"'a\x1b[31m\nb'"),
        (["--dataset", "x" * 10**5], "xxx ... xxx"),
        (["--data_dir=", "--seed", "1"], "data_dir must not be empty text"),
        (["--macro_model", "[" * 5000], "--macro_model"),
        (["--hidden_act", "gleu", "--print_config"], "unknown hidden_act 'gleu'; did you mean 'gelu'?"),
        (["--replay_budget", "9" * 400 + "GiB"], "replay_budget"),
        (["--num_labels", "3"], "has no option '--num_labels'"),
    ],
)
def test_hostile_flags_are_one_line(flags, message, capsys):
    assert main(["train", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert len(error) < 640


@pytest.mark.parametrize("flag", ["output_dir", "data_dir", "init_from", "train_file", "tokenizer", "config"])
@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000], ids=["long name", "long path"])
def test_a_name_longer_than_the_file_system_takes_is_one_line(flag, name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path / "cache"))
    settings = {"dataset": "recall", "max_seq_len": 512, "num_segments": 16}
    if flag != "data_dir":
        settings = {"dataset": "files", "train_file": "train.csv", "test_file": "test.csv", "max_seq_len": 64}
        for part in ("train", "test"):
            rows = "".join(f"{part} {i},{i % 2}\n" for i in range(40))
            (tmp_path / f"{part}.csv").write_text(f"text,label\n{rows}")
    assert main(["train", *(f"--{key}={value}" for key, value in {**settings, flag: name}.items())]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rmaat: error: ")]
    assert len(lines) == 1
    assert "xx" in lines[0] or "x/x" in lines[0]
    assert len(lines[0]) < 620
    assert "internal error" not in lines[0]


@pytest.mark.parametrize("traced", [False, True])
def test_an_error_in_a_thread_is_one_line_unless_the_traceback_is_asked_for(monkeypatch, capsys, traced):
    def work(arguments):
        def fail():
            raise OSError(28, "No space left on device")

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    monkeypatch.setattr("rmaat.cli.list.run", work)
    monkeypatch.setenv("RMAAT_TRACEBACK", "1" if traced else "")
    hook = threading.excepthook
    assert main(["list", "tasks"]) == 0
    assert threading.excepthook is hook
    error = capsys.readouterr().err
    assert "No space left on device" in error
    assert ("Traceback" in error) == traced
    assert traced or error.count("\n") == 1
