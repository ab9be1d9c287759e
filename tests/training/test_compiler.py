"""Without a C++ compiler a compiled run on a CPU is refused before anything is made."""

import sys

import pytest
import torch
from torch._inductor import config as inductor

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.compiler import check_compiler

TOLD = (
    "rmaat: error: torch_compile needs a C++ compiler and none works ($CXX, else g++); "
    "install one, or set torch_compile to false\n"
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there the compiler is searched for in another way")


def compiler(path):
    """The compiler that PyTorch would call."""
    return inductor.patch({"cpp.cxx": (None, str(path))})


@pytest.mark.parametrize(
    ("verb", "flag"), [("train", "--output_dir"), ("compare memory", "--output"), ("compare speed", "--output")]
)
def test_a_missing_compiler_is_one_line_and_leaves_no_folder(monkeypatch, tmp_path, capsys, verb, flag):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(
        "rmaat.machine.processes.in_fresh_process", lambda function, *arguments: pytest.fail("measured")
    )
    folder = tmp_path / "made"
    with compiler(tmp_path / "absent"):
        assert main([*verb.split(), "--torch_compile", "true", flag, str(folder)]) == 2
    assert capsys.readouterr().err == TOLD
    assert not folder.exists()


def test_a_compiler_that_cannot_be_started_is_none(tmp_path):
    with compiler(tmp_path), pytest.raises(UserError, match="none works"):
        check_compiler("cpu")


def test_one_that_works_is_enough_and_a_gpu_needs_none(tmp_path):
    with compiler(tmp_path / "absent"):
        check_compiler("cuda")
    with compiler(sys.executable):
        check_compiler("cpu")
