"""The folder of a run: the names of its files, its lock, its preparation."""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import delete, make_writable_folder
from rmaat.machine.locks import LockHeldError, locked
from rmaat.training.checkpoints import numbered_checkpoints, remove
from rmaat.training.stages import STAGES

RUN_CONFIG = "run.yaml"
METRICS = "metrics.json"
"""Written last: a folder with it holds a finished run."""
WEIGHTS = ("config.json", "model.safetensors")
CURVES = "curves.png"
CONFUSION = "confusion.png"
RELIABILITY = "reliability.png"
RELIABILITY_BY_LENGTH = "reliability_by_length.png"
PREDICTIONS = "predictions.png"
FIGURES = (CURVES, CONFUSION, RELIABILITY, RELIABILITY_BY_LENGTH, PREDICTIONS)
CARD = "README.md"
"""The model card."""
TOKENIZER_FILES = (
    *("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
"""The names of a tokenizer's files. A tokenizer has the first one and some of the others."""

TOKENIZER_FOLDER = "tokenizer"
"""The folder in which earlier versions stored the tokenizer, only if the user gave one."""

LOCK_SECONDS = 3.0
"""Wait this long for the lock, because the processes of a killed run need a moment to end."""


def check_is_run(folder: Path) -> None:
    """Raise `UserError` unless a folder holds the settings of a run."""
    if not (folder / RUN_CONFIG).is_file():
        raise UserError(
            f"'{folder}' is not a run: it has no {RUN_CONFIG}; give the output_dir of `rmaat train` or `rmaat pretrain`"
        )


def recorded_files(folder: Path) -> list[Path]:
    """Return the files of a finished run on which its predictions depend."""
    tokenizer = [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]
    earlier = sorted((folder / TOKENIZER_FOLDER).glob("*"))
    return [*(folder / name for name in (RUN_CONFIG, *WEIGHTS)), *tokenizer, *earlier]


def tokenizer_folder(folder: Path) -> Path:
    """Return the folder of a run's tokenizer: the run's own, or the one of an earlier version.

    Raises:
        UserError: if the run has no tokenizer.
    """
    for candidate in (folder, folder / TOKENIZER_FOLDER):
        if (candidate / TOKENIZER_FILES[0]).is_file():
            return candidate
    raise UserError(f"'{folder}' has no {TOKENIZER_FILES[0]}; put the tokenizer there that the run was trained with")


@contextmanager
def claimed(folder: Path, bytes_needed: int) -> Iterator[None]:
    """Make a run's folder, and lock it against other runs while the context is open.

    The system frees the lock if the process dies. Each process of torchrun has its own lock file,
    so that one that outlives the others also keeps a new run away.

    Args:
        folder: the output_dir.
        bytes_needed: an upper bound on the size of the run's files at one time.

    Raises:
        UserError: if the folder cannot be written, its disk is too full, or another run holds it.
    """
    rank, processes = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    with ExitStack() as stack:
        try:
            make_writable_folder(folder)
            stack.enter_context(locked(_lock_file(folder, rank), LOCK_SECONDS))
            # Look for processes of a run that had more of them. They hold what no process takes here.
            for other in folder.glob(".lock-*") if rank == 0 else ():
                if int(other.name.removeprefix(".lock-")) >= processes:
                    with locked(other, LOCK_SECONDS):
                        pass
            free = shutil.disk_usage(folder).free
        except LockHeldError:
            raise UserError(
                f"another run is writing to output_dir '{folder}'; wait for it, or give another folder"
            ) from None
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise UserError(f"output_dir '{folder}' {reason}; give another folder") from error
        if free < bytes_needed:
            raise UserError(
                f"output_dir '{folder}' has {free / 2**20:.0f} MiB free, the run needs about "
                f"{bytes_needed / 2**20:.0f} MiB for its checkpoints; free some, lower save_total_limit, "
                "or give another folder"
            )
        yield


def _lock_file(folder: Path, rank: int) -> Path:
    return folder / (f".lock-{rank}" if rank else ".lock")


def clear(folder: Path, *, overwrite: bool) -> None:
    """Remove the run that a folder holds, before a new one begins there.

    If that is interrupted, the rest is neither a finished run nor one that can be resumed.

    Args:
        folder: the output_dir.
        overwrite: remove a run; without it, a folder that holds one is refused.

    Raises:
        UserError: if the folder holds files of a run, and `overwrite` is false.
    """
    checkpoints = numbered_checkpoints(folder)
    # The marks of a run come first, then what they vouch for.
    files = [folder / name for name in (METRICS, RUN_CONFIG, STAGES, *WEIGHTS, *FIGURES, CARD, *TOKENIZER_FILES)]
    existing = [path for path in (*files, folder / TOKENIZER_FOLDER, *checkpoints) if path.exists()]
    if existing and not overwrite:
        raise UserError(
            f"output_dir '{folder}' already holds a run ({existing[0].name}); "
            "give another folder, or --resume, or --overwrite"
        )
    for path in files[:3]:
        delete(path)
    for checkpoint in checkpoints:
        remove(checkpoint)
    for path in (*files[3:], folder / TOKENIZER_FOLDER):
        delete(path)


def clear_results(folder: Path) -> None:
    """Remove the results of a finished run before it is resumed; its checkpoints stay."""
    for name in (METRICS, *WEIGHTS, *FIGURES, CARD):
        delete(folder / name)
