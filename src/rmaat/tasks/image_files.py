"""Read the official and compact files of image data sets, and check what is in them."""

from __future__ import annotations

import math
import pickle
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from rmaat.errors import UserError
from rmaat.tasks.base import TaskInfo
from rmaat.tasks.npz import read_arrays
from rmaat.tasks.text import open_bytes

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Grey levels (B, rows, columns) and labels (B,)."""


def _checked(info: TaskInfo, where: str, images: NDArray[Any], labels: NDArray[Any]) -> Images:
    """Return the arrays if they are images of the task and their labels; else raise `UserError`."""
    assert info.image_shape is not None
    rows, columns = info.image_shape
    if images.dtype != np.uint8 or images.shape[1:] != (rows, columns) or not len(images):
        raise UserError(f"{where}: the images are {images.dtype} {images.shape}; expected uint8 (n, {rows}, {columns})")
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise UserError(
            f"{where}: the labels are {labels.dtype} {labels.shape}; expected whole numbers ({len(images)},)"
        )
    if labels.min() < 0 or labels.max() >= len(info.label_names):
        raise UserError(f"{where}: labels from {labels.min()} to {labels.max()}, not 0 to {len(info.label_names) - 1}")
    return images, labels.astype(np.int64)


def read_compact(info: TaskInfo, sources: Sequence[Path]) -> tuple[Images, Images]:
    """Return train and test part of a compact .npz file."""
    (path,) = sources
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = read_arrays(path, names, ".npz file of images", "fetch it again")
    train, test = (
        _checked(info, f"{path}, {part}", arrays[f"x_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")
    )
    return train, test


# The official batches of CIFAR-10 are pickles. They are read without running anything in them:
# every name that a batch refers to is replaced by one of the functions and classes below, and other
# names are refused.

MOST_PICKLE_BYTES = 64 * 2**20
"""Larger files are refused; an official batch has 31 million bytes."""


class _Dtype:
    """Replacement of numpy.dtype: stores the code of the type."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and the like, which single bytes do not have."""


class _Bytes:
    """Replacement of numpy.ndarray.

    Makes a uint8 array of (version, shape, dtype, by columns, raw bytes).
    """

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
    """Reader of lists, numbers, strings and arrays of bytes."""

    REPLACEMENTS: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _array,
        ("numpy._core.multiarray", "_reconstruct"): _array,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a name; raises `UnpicklingError` if there is none."""
        if (module, name) not in self.REPLACEMENTS:
            raise pickle.UnpicklingError(f"it asks for '{module}.{name}', which no batch of images needs; not run")
        return self.REPLACEMENTS[module, name]

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuse references to objects outside the file, which no batch has."""
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
    """Return grey levels (B, rows, columns) of colour images (B, 3, rows, columns).

    They are the ITU-R 601 luma in Pillow's integer arithmetic.
    """
    red, green, blue = (images[:, i].astype(np.uint32) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)


def read_batches(info: TaskInfo, sources: Sequence[Path]) -> tuple[Images, Images]:
    """Return train and test part of CIFAR-10's official batches; the last one is the test part."""
    *train, test = (_read_batch(info, path) for path in sources)
    images, labels = zip(*train, strict=True)
    return (np.concatenate(images), np.concatenate(labels)), test


# The official idx files of MNIST and Fashion-MNIST.

IDX_FILES = tuple(
    f"{part}-{what}.gz" for part in ("train", "t10k") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
)
"""Names of the four files: images and labels of train, then of test."""

MOST_AXES = 3

MOST_IDX_BYTES = 64 * 2**20
"""Larger files are refused; the largest official one unpacks to 47 million bytes."""


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of an idx file of bytes.

    The file holds two zeros, 8 for bytes, the number of axes, each length as a big-endian int32,
    and the bytes.
    """
    try:
        with open_bytes(path) as file:
            content = file.read(MOST_IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not a whole .gz file ({error}); fetch it again") from error
    if len(content) > MOST_IDX_BYTES:
        raise UserError(f"{path}: too large for an idx file of images; fetch it again")
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if len(content) >= start else ()
    if not 1 <= axes <= MOST_AXES or not shape or len(content) - start != math.prod(shape):
        raise UserError(f"{path}: not a whole idx file of bytes; fetch it again")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_idx_files(info: TaskInfo, sources: Sequence[Path]) -> tuple[Images, Images]:
    """Return train and test part of four idx files, in the order of `IDX_FILES`."""
    arrays = [_read_idx(path) for path in sources]
    train, test = (_checked(info, str(sources[i]), arrays[i], arrays[i + 1]) for i in (0, 2))
    return train, test
