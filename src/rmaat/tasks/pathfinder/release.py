"""Read Pathfinder32 of the Long Range Arena's release: PNG images, and metadata as lines of text.

In spite of its name, `metadata/N.npy` is not a NumPy file. A line has the image's folder, the
image's name, a number, the label 0 or 1, and settings, separated by spaces:
`imgs/0 sample_7.png 7 1 ...`. The release is not split into parts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks.pathfinder.settings import SIZE
from rmaat.tasks.text import read_lines

FOLDERS: Final = {
    "hard": "curv_contour_length_14",
    "intermediate": "curv_contour_length_9",
    "easy": "curv_baseline",
}
"""The release's folder of each difficulty."""

EMPTY: Final = Path("curv_baseline/imgs/0/sample_172.png")
"""The one image of the published release that is an empty file."""


def metadata_files(folder: Path) -> list[Path]:
    """Return the metadata files of one difficulty, by number; none if the folder is missing."""
    files = [path for path in (folder / "metadata").glob("*.npy") if path.stem.isdigit()]
    return sorted(files, key=lambda path: int(path.stem))


def listed(folder: Path) -> list[tuple[Path, int]]:
    """Return paths of images and their labels, in the order of the metadata.

    Raises:
        UserError: if the metadata is malformed; names file and line.
    """
    entries = [entry for path in metadata_files(folder) for entry in _entries(folder, path)]
    if not entries:
        raise UserError(f"{folder}: the metadata name no image; unpack the release again")
    return entries


def _entries(folder: Path, path: Path) -> Iterator[tuple[Path, int]]:
    for number, line in read_lines(path):
        words = line.decode(errors="replace").split()
        if len(words) < 4 or words[3] not in ("0", "1"):
            raise UserError(f"{path}, line {number}: expected a folder, an image, a number and a label of 0 or 1")
        image = Path(words[0], words[1])
        if image.is_absolute() or ".." in image.parts:
            raise UserError(f"{path}, line {number}: '{image}' leads out of {folder}")
        yield folder / image, int(words[3])


def read_images(entries: list[tuple[Path, int]]) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Return images (B, 32, 32), labels (B,), and how many known empty images were skipped.

    Raises:
        UserError: if an image is missing or damaged; names it.
    """
    readable = [entry for entry in entries if not _is_known_empty(entry[0])]
    images = np.empty((len(readable), SIZE, SIZE), np.uint8)
    for i, (path, _) in enumerate(readable):
        images[i] = _read_image(path)
    return images, np.array([label for _, label in readable], np.int64), len(entries) - len(readable)


def _is_known_empty(path: Path) -> bool:
    return path.parts[-len(EMPTY.parts) :] == EMPTY.parts and path.is_file() and not path.stat().st_size


def _read_image(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            # Compare the size before anything is unpacked.
            if picture.size != (SIZE, SIZE):
                raise UserError(f"{path}: {picture.size[0]} x {picture.size[1]} pixels, not {SIZE} x {SIZE}")
            image = np.asarray(picture.convert("L"))
    except UserError:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: the image cannot be read ({reason}); unpack the release again") from error
    return image
