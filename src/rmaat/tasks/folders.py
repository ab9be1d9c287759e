"""Folders of text files: the texts of a folder, and a folder for each class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rmaat.errors import UserError
from rmaat.tasks.inputs import read_text

TEXT_SUFFIXES = (".txt", ".md")
"""Files that are a text each; .gz or .xz may follow."""


def kind_of(path: Path) -> str:
    """Return the suffix of a file's name in small letters, without that of its compression."""
    suffixes = path.suffixes
    return (suffixes[-2] if len(suffixes) > 1 and suffixes[-1] in (".gz", ".xz") else path.suffix).lower()


def files_beneath(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """Return the files beneath a folder of some kinds, sorted by path; hidden ones are left out."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and kind_of(path) in kinds
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def class_files(folder: Path, option: str) -> list[tuple[str, Path]]:
    """Return class and path of each text of a folder whose sub-folders are the classes.

    Args:
        folder: the folder.
        option: the setting that names it, for messages.

    Raises:
        UserError: if there are no sub-folders, or one has no text.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise UserError(f"{option}: the folder {folder} has no sub-folders; it needs one for each label")
    files = []
    for path in classes:
        texts = files_beneath(path, TEXT_SUFFIXES)
        if not texts:
            suffixes = " or ".join(TEXT_SUFFIXES)
            raise UserError(f"{option}: the folder {path} has no text; names must end in {suffixes} (also .gz, .xz)")
        files += [(path.name, text) for text in texts]
    return files


def read_class_files(folder: Path, option: str) -> Iterator[tuple[str, str, str | UserError]]:
    """Yield place, class and text of each file of a folder; a text that cannot be read is its mistake."""
    for name, path in class_files(folder, option):
        text: str | UserError
        try:
            text = read_text(str(path))
        except UserError as error:
            text = error
        yield str(path.relative_to(folder)), name, text
