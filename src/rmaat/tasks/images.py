"""Images, grey level by grey level, row by row: CIFAR-10 (the Long Range Arena's Image task), MNIST, Fashion-MNIST.

Each is read from a compact .npz file (arrays x_train, y_train, x_test, y_test; CIFAR-10 in grey) or from its official
files: CIFAR-10's python batches, in colour, and the gzipped idx files of the other two. The last 5,000 images of the
train part are for validation. A token is a grey level, 0..255, with itself as id; as a real value it is
(level - `value_mean`) / `value_std`.
"""

from __future__ import annotations

import math
import pickle
import zlib
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.machine.files import replacing
from rmaat.tasks.base import Part, Task, TaskInfo, TokenIds, first_complete
from rmaat.tasks.download import CIFAR_10, Download
from rmaat.tasks.npz import read_arrays
from rmaat.tasks.text import open_bytes

VALIDATION = 5_000
"""Images held out: the last ones of the train part."""

MOST_PICKLE_BYTES = 64 * 2**20
"""An official batch has 31 million bytes."""

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Grey levels (B, rows, columns) and labels (B,)."""


class ImageTask(Task, ABC):
    """A task on grey images of one shape."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        assert self.info.image_shape is not None
        return self.info.image_shape

    def encode(self, text: str) -> NDArray[np.uint8]:
        """Grey levels (rows * columns,) of the picture whose path is given, in any format that Pillow reads.

        Raises `UserError`, which does not name the path, where it is none of that size.
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
        """The picture in characters, darker to brighter, a line a row."""
        brightness = " .:-=+*#%@"
        levels = np.asarray(ids, np.int64) * len(brightness) // 256
        text = "".join(brightness[level] for level in levels)
        return "\n".join(text[start : start + self.shape[1]] for start in range(0, len(text), self.shape[1]))

    def part(self, images: NDArray[np.uint8], labels: NDArray[Any], notes: Sequence[str] = ()) -> Part:
        """A part of images (B, rows, columns) and labels (B,)."""
        flat = np.ascontiguousarray(images).reshape(len(images), -1)
        return Part(zip(((row,) for row in flat), labels.tolist(), strict=True), list(notes), expected=len(flat))


def contact_sheet(images: Sequence[NDArray[np.uint8]], path: Path, scale: int = 4) -> None:
    """Write images of one shape (rows, columns), enlarged, side by side into one PNG; `UserError` where it cannot be."""
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
    """Files that hold a whole data set, and what reads them: the official train part in its order, and the test part."""

    files: Callable[[Path], Sequence[Path]]
    read: Callable[[TaskInfo, Sequence[Path]], tuple[Images, Images]]


class Pixels(ImageTask):
    """Images with an official train and test part, from the first of several layouts that is there."""

    def __init__(
        self, info: TaskInfo, layouts: Sequence[Layout], remedy: str, download: Download | None = None
    ) -> None:
        self.info = info
        self.layouts = layouts
        self.remedy = remedy
        self.download = download

    def sources(self, data_dir: Path) -> tuple[Path, ...]:
        """The files of the first layout that is whole."""
        candidates = [layout.files(data_dir) for layout in self.layouts]
        return first_complete(candidates, self.remedy.format(data_dir=data_dir))

    def build(self, data_dir: Path, seed: int) -> Mapping[str, Part]:
        """Read; the last 5,000 images of train are for validation, whatever the seed."""
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


def _checked(info: TaskInfo, where: str, images: NDArray[Any], labels: NDArray[Any]) -> Images:
    """The arrays, once they are known to be images of the task and their labels; else `UserError`."""
    assert info.image_shape is not None
    rows, columns = info.image_shape
    if images.dtype != np.uint8 or images.shape[1:] != (rows, columns) or not len(images):
        found = f"{images.dtype} {images.shape}"
        raise UserError(f"{where}: the images are {found} where uint8 (n, {rows}, {columns}) is expected")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        found = f"{labels.dtype} {labels.shape}"
        raise UserError(f"{where}: the labels are {found} where whole numbers ({len(images)},) are expected")
    if labels.min() < 0 or labels.max() >= len(info.label_names):
        raise UserError(f"{where}: labels from {labels.min()} to {labels.max()}, not 0 to {len(info.label_names) - 1}")
    return images, labels.astype(np.int64)


def _read_compact(info: TaskInfo, sources: Sequence[Path]) -> tuple[Images, Images]:
    (path,) = sources
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = read_arrays(path, names, ".npz file of images", "fetch it again")
    train, test = (
        _checked(info, f"{path}, {part}", arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")
    )
    return train, test


# The official batches of CIFAR-10 -------------------------------------------------------------------------------------


class _Dtype:
    """Stands for numpy.dtype in a pickle: keeps the type's code, checks nothing else."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which single bytes do not have."""


class _Bytes:
    """Stands for an array in a pickle: (version, shape, dtype, by columns, raw bytes) become a uint8 array."""

    pixels: NDArray[np.uint8] | None = None

    def __setstate__(self, state: object) -> None:
        match state:
            case (int(), tuple(shape), _Dtype(code=code), False | 0, bytes(raw)) if code in ("u1", b"u1"):
                self.pixels = np.frombuffer(raw, np.uint8).reshape(shape)
            case _:
                raise pickle.UnpicklingError("an array that is not of bytes")


def _array(*_: object) -> _Bytes:
    return _Bytes()


def _latin1(text: object, encoding: object = None) -> bytes:
    if not isinstance(text, str):
        raise pickle.UnpicklingError("a string of bytes that is no string")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Reads lists, numbers, strings and arrays of bytes. No name in the file reaches code of any other kind."""

    STAND_INS: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("numpy._core.multiarray", "_reconstruct"): _array,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a global of the file; refused where nothing does."""
        if (module, name) not in self.STAND_INS:
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}', which no batch of images needs; not run")
        return self.STAND_INS[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        """No batch has any."""
        raise pickle.UnpicklingError("it refers to things outside")


def _read_batch(info: TaskInfo, path: Path) -> Images:
    remedy = "fetch cifar-10-python.tar.gz again"
    try:
        if path.stat().st_size > MOST_PICKLE_BYTES:
            raise UserError(f"{path}: too large for a batch of CIFAR-10; {remedy}")
        with path.open("rb") as file:
            batch = _Unpickler(file, encoding="bytes").load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a batch of CIFAR-10 ({reason}); {remedy}") from error
    pixels, labels = (batch.get(key) for key in (b"data", b"labels")) if isinstance(batch, dict) else (None, None)
    images = pixels.pixels if isinstance(pixels, _Bytes) else None
    if images is None or images.ndim != 2 or images.shape[1] != 3 * 32 * 32:
        raise UserError(f"{path}: not a batch of CIFAR-10 (no 'data' of n x 3,072 bytes); {remedy}")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 2**31 for label in labels):
        raise UserError(f"{path}: not a batch of CIFAR-10 (no 'labels' that are whole numbers); {remedy}")
    return _checked(info, str(path), grey(images.reshape(-1, 3, 32, 32)), np.array(labels, np.int64))


def grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey levels (B, rows, columns) of colour images (B, 3, rows, columns): ITU-R 601 luma in integers, as Pillow's."""
    red, green, blue = (images[:, i].astype(np.uint32) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def _read_batches(info: TaskInfo, sources: Sequence[Path]) -> tuple[Images, Images]:
    *train, test = (_read_batch(info, path) for path in sources)
    images, labels = zip(*train, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


# The official idx files of MNIST and its kin ----------------------------------------------------------------------------

IDX_FILES = tuple(
    f"{part}-{what}.gz" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
)


MOST_AXES = 3


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An idx file of bytes: two zeros, 8 for bytes, the number of axes, each length as a big-endian int32, the bytes."""
    try:
        with open_bytes(path) as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole .gz file ({error}); fetch it again") from error
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else ()
    if not 1 <= axes <= MOST_AXES or not shape or len(content) - start != math.prod(shape):
        raise UserError(f"{path}: not a whole idx file of bytes; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_idx_files(info: TaskInfo, sources: Sequence[Path]) -> tuple[Images, Images]:
    arrays = [_read_idx(path) for path in sources]
    train, test = (_checked(info, str(sources[i]), arrays[i], arrays[i + 1]) for i in (0, 2))
    return train, test


def _idx_task(name: str, summary: str, labels: Sequence[str], origin: str, mean: float, std: float) -> Pixels:
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
            Layout(lambda data_dir: [data_dir / f"{name}.npz"], _read_compact),
            Layout(lambda data_dir: [data_dir / name / file for file in IDX_FILES], _read_idx_files),
        ],
        f"get the four idx files ({IDX_FILES[0]} and so on) of {origin}, and put them into the folder {{data_dir}}/{name}",
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
        Layout(lambda data_dir: [data_dir / "cifar10_gray.npz"], _read_compact),
        Layout(
            lambda data_dir: [
                data_dir / CIFAR_10.folder / name for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
            ],
            _read_batches,
        ),
    ],
    f"get it with `rmaat data cifar10 --download`, or unpack {CIFAR_10.name} into {{data_dir}}",
    CIFAR_10,
)

# Means and standard deviations are those of all levels of the 60,000 official train images.

MNIST = _idx_task(
    "mnist",
    "a handwritten digit, pixel by pixel",
    tuple("0123456789"),
    "MNIST by LeCun, Cortes and Burges (also on mirrors)",
    mean=33.3184,
    std=78.5675,
)

FASHION_MNIST = _idx_task(
    "fashion_mnist",
    "a piece of clothing, pixel by pixel",
    ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    "zalandoresearch/fashion-mnist on GitHub",
    mean=72.9404,
    std=90.0212,
)
