"""Where a figure comes from: the command, the commit and the machine, to be stored beside it."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from rmaat import __version__


def provenance() -> dict[str, str]:
    """Return `command`, `commit` and `machine`, each one line.

    Absolute paths below the working directory are relative in the command, so that others can
    repeat it.

    The commit is `$RMAAT_COMMIT` if set, else that of the repository that tracks this package, else
    the package's version.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *map(_relative, sys.argv[1:])]),
        "commit": _commit(),
        "machine": f"{device}, {os.cpu_count()} CPU cores, {platform.system()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}",
    }


def _relative(word: str) -> str:
    path = Path(word)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else word


def _commit() -> str:
    # A copy of the files without their repository cannot ask git.
    if commit := os.environ.get("RMAAT_COMMIT"):
        return commit
    module = Path(__file__).resolve().parents[1] / "__init__.py"
    try:
        # An installed package may lie in another project's repository: its commit is no source.
        _git(module.parent, "ls-files", "--error-unmatch", module.name)
        describe = ("describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*")
        return _git(module.parent, *describe)
    except (OSError, subprocess.CalledProcessError):
        return f"version {__version__}"


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
