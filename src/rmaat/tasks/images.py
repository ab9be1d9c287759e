"""Images as sequences of grey levels: CIFAR-10 (LRA's Image task), MNIST, Fashion-MNIST.

Each is read from a compact .npz file (arrays x_train, y_train, x_test, y_test; CIFAR-10 in grey) or
from its official files: CIFAR-10's python batches, in colour, and the gzipped idx files of the
other two (readers in `image_files.py`). The last 5,000 images of the train part are for validation.
A token's id is its grey level, 0..255; as a real value it is (level - `value_mean`) / `value_std`.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.machine.files import replacing
from rmaat.tasks.base import Part, Task, TaskInfo, TokenIds, first_complete
from rmaat.tasks.download import CIFAR_10, Download
from rmaat.tasks.image_augmentation import ImageAugmentation
from rmaat.tasks.image_files import IDX_FILES, Images, read_batches, read_compact, read_idx_files

VALIDATION = 5_000
"""Number of images held out: the last ones of the train part."""


class ImageTask(Task, ABC):
    """A task on grey images of one shape."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        assert self.info.image_shape is not None
        return self.info.image_shape

    def encode(self, text: str) -> NDArray[np.uint8]:
        """Return the grey levels (rows * columns,) of the picture at this path.

        It may have any format that Pillow reads.

        Raises:
            UserError: if it is no picture of that size; the message does not name the path.
        """
        from PIL import Image, UnidentifiedImageError

        rows, columns = self.shape
        try:
            with Image.open(text) as picture:
                if picture.size != (columns, rows):
                    raise UserError(f"{picture.size[0]} x {picture.size[1]} pixels, not {columns} x {rows}")
                return np.asarray(picture.convert("L")).reshape(-1)
        except UnidentifiedImageError as error:
            raise UserError("no picture that can be read; PNG is fine") from error
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"the picture cannot be read ({getattr(error, 'strerror', None) or error})") from error

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """Return the picture in characters, darker to brighter, one line for each row."""
        brightness = " .:-=+*#%@"
        levels = np.asarray(ids, np.int64) * len(brightness) // 256
        text = "".join(brightness[level] for level in levels)
        return "\n".join(text[start : start + self.shape[1]] for start in range(0, len(text), self.shape[1]))

    def part(self, images: NDArray[np.uint8], labels: NDArray[Any], notes: Sequence[str] = ()) -> Part:
        """Return a part of images (B, rows, columns) and labels (B,)."""
        flat = np.ascontiguousarray(images).reshape(len(images), -1)
        return Part(zip(((row,) for row in flat), labels.tolist(), strict=True), list(notes), expected=len(flat))


def contact_sheet(images: Sequence[NDArray[np.uint8]], path: Path, scale: int = 4) -> None:
    """Write images of one shape (rows, columns), enlarged, side by side into one PNG.

    Raises:
        UserError: if the file cannot be written.
    """
    from PIL import Image

    across = math.ceil(math.sqrt(len(images)))
    down = math.ceil(len(images) / across)
    rows, columns = (scale * side for side in images[0].shape)
    sheet = np.full((down * (rows + scale) - scale, across * (columns + scale) - scale), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // across * (rows + scale), i % across * (columns + scale)
        sheet[top : top + rows, left : left + columns] = image.repeat(scale, 0).repeat(scale, 1)
    try:
        with replacing(path) as file:
            Image.fromarray(sheet).save(file, format="PNG")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error})") from error


@dataclass(frozen=True)
class Layout:
    """Files that hold a whole data set, and their reader."""

    files: Callable[[Path], Sequence[Path]]
    """Returns the files in a data folder, whether they exist or not."""
    read: Callable[[TaskInfo, Sequence[Path]], tuple[Images, Images]]
    """Returns the official train part in its order, and the test part."""


class Pixels(ImageTask):
    """Images with an official train and test part, in one of several layouts."""

    def __init__(
        self,
        info: TaskInfo,
        layouts: Sequence[Layout],
        remedy: str,
        download: Download | None = None,
        *,
        shift: int,
        mirror: bool,
    ) -> None:
        self.info = info
        self.layouts = layouts
        self.remedy = remedy
        self.download = download
        self._augmentation = ImageAugmentation(self.shape, shift=shift, mirror=mirror)

    def augmentation(self) -> ImageAugmentation:
        """Return random shifts and, if a mirror image has the same label, mirror images."""
        return self._augmentation

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """Return the files of the first complete layout."""
        candidates = [layout.files(data_dir) for layout in self.layouts]
        return first_complete(candidates, self.remedy.format(data_dir=data_dir))

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read the images; the last 5,000 of train are for validation, whatever the seed."""
        sources = self.sources(data_dir)
        layout = next(layout for layout in self.layouts if tuple(layout.files(data_dir)) == sources)
        (images, labels), test = layout.read(self.info, sources)
        if len(images) <= VALIDATION:
            raise UserError(f"{sources[0]}: {len(images):,} images for training, {VALIDATION:,} are held out of them")
        return {
            "train": self.part(images[:-VALIDATION], labels[:-VALIDATION]),
            "validation": self.part(images[-VALIDATION:], labels[-VALIDATION:]),
            "test": self.part(*test),
        }


def _idx_task(
    name: str, summary: str, labels: Sequence[str], origin: str, mean: float, std: float, *, mirror: bool
) -> Pixels:
    return Pixels(
        TaskInfo(
            name=name,
            summary=summary,
            kind="image",
            vocab_size=256,
            label_names=tuple(labels),
            max_seq_len=784,
            sizes=(55_000, VALIDATION, 10_000),
            source=f"{origin}: {name}.npz, or the four official files in {name}/",
            image_shape=(28, 28),
            value_mean=mean,
            value_std=std,
        ),
        [
            Layout(lambda data_dir: [data_dir / f"{name}.npz"], read_compact),
            Layout(lambda data_dir: [data_dir / name / file for file in IDX_FILES], read_idx_files),
        ],
        f"get the four idx files ({IDX_FILES[0]} and so on) of {origin}, and put them into the folder {{data_dir}}/{name}",
        shift=2,
        mirror=mirror,
    )


CIFAR10 = Pixels(
    TaskInfo(
        name="cifar10",
        summary="what a grey picture of 32 x 32 pixels shows [LRA]",
        kind="image",
        vocab_size=256,
        label_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        max_seq_len=1024,
        sizes=(45_000, VALIDATION, 10_000),
        source="CIFAR-10: cifar10_gray.npz, or the folder cifar-10-batches-py",
        image_shape=(32, 32),
        # Mean and standard deviation of all grey levels of the 50,000 official train images.
        value_mean=122.6196,
        value_std=60.9936,
    ),
    [
        Layout(lambda data_dir: [data_dir / "cifar10_gray.npz"], read_compact),
        Layout(
            lambda data_dir: [
                data_dir / CIFAR_10.folder / name for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
            ],
            read_batches,
        ),
    ],
    f"get it with `rmaat data cifar10 --download`, or unpack {CIFAR_10.name} into {{data_dir}}",
    CIFAR_10,
    shift=4,
    mirror=True,
)

# Means and standard deviations are those of all levels of the 60,000 official train images.

MNIST = _idx_task(
    "mnist",
    "a handwritten digit, pixel by pixel",
    tuple("0123456789"),
    "MNIST by LeCun, Cortes and Burges (also on mirrors)",
    mean=33.3184,
    std=78.5675,
    mirror=False,
)

FASHION_MNIST = _idx_task(
    "fashion_mnist",
    "a piece of clothing, pixel by pixel",
    ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    "zalandoresearch/fashion-mnist on GitHub",
    mean=72.9404,
    std=90.0212,
    mirror=True,
)
