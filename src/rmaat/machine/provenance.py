"""Where a figure comes from: the command, the commit and the machine, to be stored beside it."""

import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path


def provenance() -> dict[str, str]:
    """Return `command`, `commit` and `machine`, each one line.

    The commit is `$RMAAT_COMMIT` if set, else that of the checkout, else the installed version.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "commit": _commit(),
        "machine": f"{device}, {os.cpu_count()} CPU cores, {platform.system()}, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}",
    }


def _commit() -> str:
    # A copy of the files without their repository cannot ask git.
    if commit := os.environ.get("RMAAT_COMMIT"):
        return commit
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        from rmaat import __version__

        return f"version {__version__}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
