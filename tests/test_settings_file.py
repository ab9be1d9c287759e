"""Files of settings that are damaged or hostile: one line, at once."""

import os
import threading

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.settings_file import LARGEST_FILE, parse_settings, settings_text
from rmaat.training.config import RunConfig, read_settings

LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefghij", "bcdefghijk", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"seed: 1\nmax_steps: 2\nseed: 3\n", "line 3 is not YAML: the key 'seed' is there twice"),
        (b"macro_model: {tau_long: 3, tau_long: 4}\n", "the key 'tau_long' is there twice"),
        (LAUGHS.encode(), "line 2 is not YAML: write the value instead of an alias"),
        (b"seed: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        (b"seed: " + b"9" * 5000, "holds a value that cannot be read"),
        (b"output_dir: 2020-99-99\n", "holds a value that cannot be read: month must be in 1..12"),
        (b"seed: " + b"[" * 3000 + b"]" * 3000, "too many nested brackets"),
        (b"- seed: 1\n", "must be lines of 'key: value'"),
        (b"seed\n", "must be lines of 'key: value'"),
        (b"seed: 1\x00", "is not YAML: unacceptable character"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"a: " + b"[" * 5000, "too many nested brackets"),
        (b"\xff\xfea", "is not UTF-8 text"),
        (b"#" * (LARGEST_FILE + 1), "more than 1,048,576 bytes"),
        (b"1: 2\n", "has no setting '1'"),
        (b"'\\e[31m\\n': 2\n", "has no setting"),
        (b"max_steps: -1\n", "max_steps must be a whole number >= 0, not -1"),
        (b"hebbian_scale: .nan\n", "hebbian_scale must be a finite number, not nan"),
        (b"output_dir: 2020-01-01\n", "it must be text, as in output_dir: 'datetime.date(2020, 1, 1)'"),
    ],
)
def test_a_hostile_file_is_one_line(tmp_path, content, message, capsys):
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    assert main(["train", "--config", str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "run.yaml'" in error
    assert error.count("\n") == 1
    assert error.strip().isprintable()


@pytest.mark.parametrize("name", ["", "folder", "x" * 300, "nul\0"])
def test_a_path_that_is_no_file_is_one_line(tmp_path, monkeypatch, name, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    assert main(["train", f"--config={name}"]) == 2
    error = capsys.readouterr().err
    assert "cannot read the run config" in error or "--config needs the path" in error
    assert len(error) < 400


def test_a_mark_of_byte_order_and_an_empty_file_are_allowed(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xef\xbb\xbfseed: 3\n")
    assert read_settings(path) == {"seed": 3}
    path.write_bytes(b"")
    assert RunConfig.from_yaml(path) == RunConfig()


def test_a_pipe_is_read_and_an_endless_one_is_not(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("seed: 4\n"))
    writer.start()
    assert read_settings(pipe) == {"seed": 4}
    writer.join()
    with pytest.raises(UserError, match="more than"):
        read_settings(type(pipe)("/dev/zero"))


def test_a_merge_needs_an_alias_and_is_refused():
    with pytest.raises(UserError, match="alias"):
        parse_settings("base: &b {x: 1}\nother:\n  <<: *b\n", "text")


@pytest.mark.parametrize(
    "value", ["1e3", "2e-3", "1.5", "true", "null", "2020-01-01", "0x1f", "a: b", "- c", 2e-3, 1e300]
)
def test_a_written_value_is_read_as_the_same_value(value):
    assert parse_settings(settings_text({"name": value}), "text") == {"name": value}
