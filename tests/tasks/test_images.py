"""Image tasks: every layout, damage and malice, and the real files."""

import gzip
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rmaat.errors import UserError
from rmaat.tasks import TASKS, image_files, images, load
from rmaat.tasks.image_files import IDX_FILES, grey
from rmaat.tasks.images import CIFAR10, MNIST, contact_sheet

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (60, 3, 32, 32), np.uint8)
LABELS = RNG.integers(0, 10, 60)


@pytest.fixture(autouse=True)
def few_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "VALIDATION", 5)


def python2_pickle(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """A batch as Python 2's cPickle wrote it: protocol 2, byte strings, NumPy's old module names."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    numbers = b"".join(b"J" + label.to_bytes(4, "little") for label in labels)
    shape = b"".join(b"J" + side.to_bytes(4, "little") for side in pixels.shape)
    raw = pixels.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
        b"(K\x01" + shape + b"\x86cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )
    entries = short(b"batch_label") + short(b"testing batch") + short(b"labels") + b"](" + numbers + b"e"
    return b"\x80\x02}(" + entries + short(b"data") + array + b"u."


def put_batches(data_dir: Path, write: Callable[[NDArray[np.uint8], list[int]], bytes] = python2_pickle) -> Path:
    folder = data_dir / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for i, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        of_batch = slice(10 * i, 10 * i + 10)
        (folder / name).write_bytes(write(COLOUR[of_batch].reshape(10, -1), LABELS[of_batch].tolist()))
    return data_dir


def put_compact(data_dir: Path, name: str = "cifar10_gray", **changes: Any) -> Path:
    data_dir.mkdir(parents=True, exist_ok=True)
    levels = grey(COLOUR) if name == "cifar10_gray" else grey(COLOUR)[:, :28, :28]
    arrays = {"x_train": levels[:50], "y_train": LABELS[:50], "x_test": levels[50:], "y_test": LABELS[50:], **changes}
    np.savez_compressed(data_dir / f"{name}.npz", **arrays)
    return data_dir


def modern_pickle(protocol: int) -> Callable[[NDArray[np.uint8], list[int]], bytes]:
    return lambda pixels, labels: pickle.dumps({b"data": pixels, b"labels": labels}, protocol)


def test_grey_is_pillows() -> None:
    picture = Image.fromarray(COLOUR[0].transpose(1, 2, 0), "RGB").convert("L")
    assert (grey(COLOUR[:1])[0] == np.asarray(picture)).all()


@pytest.mark.parametrize("write", [python2_pickle, modern_pickle(2), modern_pickle(3), modern_pickle(4)])
def test_official_batches_and_compact_file_give_the_same(
    tmp_path: Path, write: Callable[[NDArray[np.uint8], list[int]], bytes]
) -> None:
    official = load("cifar10", put_batches(tmp_path / "official", write))
    compact = load("cifar10", put_compact(tmp_path / "compact"))
    for split, size in (("train", 45), ("validation", 5), ("test", 10)):
        assert official[split].to_dict() == compact[split].to_dict()
        assert len(official[split]) == size
    assert official["validation"]["labels"] == LABELS[45:50].tolist()
    assert official["test"][0]["input_ids"] == grey(COLOUR)[50].reshape(-1).tolist()


def idx(array: NDArray[Any]) -> bytes:
    header = b"\0\0\x08" + bytes([array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    return header + array.astype(np.uint8).tobytes()


def put_idx(data_dir: Path, train: int, test: int) -> Path:
    folder = data_dir / "mnist"
    folder.mkdir(parents=True, exist_ok=True)
    levels = grey(COLOUR)[:, :28, :28]
    arrays = (levels[:train], LABELS[:train], levels[-test:], LABELS[-test:])
    for name, array in zip(IDX_FILES, arrays, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(array)))
    return folder


def test_idx_files_and_compact_file_give_the_same(tmp_path: Path) -> None:
    compact = load("mnist", put_compact(tmp_path, "mnist"))
    folder = put_idx(tmp_path / "other", 50, 10)
    official = load("mnist", tmp_path / "other")
    assert all(official[split].to_dict() == compact[split].to_dict() for split in compact)
    path = folder / IDX_FILES[2]
    whole = path.read_bytes()
    for damaged, word in (
        (whole[:-9], "not a whole .gz file"),
        (b"", "not a whole idx file"),
        (gzip.compress(gzip.decompress(whole)[:-1]), "not a whole idx file"),
        (gzip.compress(b"\0\0\x0d\x01"), "not a whole idx file"),
        (whole[:30] + bytes(9) + whole[39:], "not a whole .gz file"),  # what zlib itself finds
        (gzip.compress(b"\0\0\x08\x02" + 2 * (-2).to_bytes(4, "big", signed=True) + b"abcd"), "not a whole idx file"),
        (gzip.compress(b"\0\0\x08\x46" + 70 * (1).to_bytes(4, "big") + b"a"), "not a whole idx file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"{path.name}.*{word}"):
            load("mnist", tmp_path / "other")


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_compact(tmp_path, x_train=np.zeros((2**17, 32, 32), np.uint8), y_train=np.zeros(2**17, np.uint8))
    with pytest.raises(UserError, match=r"cifar10_gray\.npz: .*it would unpack to 134,3"):
        load("cifar10", tmp_path)
    monkeypatch.setattr(image_files, "MOST_IDX_BYTES", 16 + 49 * 784)
    path = put_idx(tmp_path, 50, 10) / IDX_FILES[0]
    with pytest.raises(UserError, match=rf"{path.name}: too large for an idx file"):
        load("mnist", tmp_path)


@given(
    packed=st.booleans(),
    cut=st.integers(0, 60),
    changes=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=4),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mangled_idx_files_are_read_or_refused(
    tmp_path: Path, packed: bool, cut: int, changes: list[tuple[int, int]]
) -> None:
    path = put_idx(tmp_path, 7, 2) / IDX_FILES[2]
    content = bytearray(path.read_bytes() if packed else gzip.decompress(path.read_bytes()))
    for place, byte in changes:
        content[place] = byte
    del content[len(content) - cut :]
    path.write_bytes(content if packed else gzip.compress(content))
    try:
        rows = list(MNIST.build(tmp_path, 0)["test"].rows)
    except UserError as error:
        message = str(error)
    else:
        assert [len(row) for (row,), _ in rows] == [784] * 2
        return
    assert path.name in message
    assert "\n" not in message


class Harmful:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


class HarmfulState:
    def __reduce__(self) -> Any:
        return np.ndarray, ((10**9,), np.dtype("O"))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (pickle.dumps(Harmful(), 2), "asks for '(posix|nt).system'"),
        (pickle.dumps({b"data": Harmful(), b"labels": [1]}), "asks for '(posix|nt).system'"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "asks for 'builtins.eval'"),
        (pickle.dumps(HarmfulState()), "not a batch of CIFAR-10"),
        (b"P1\n.", "refers to things outside"),
        (b"", "not a batch of CIFAR-10"),
        (pickle.dumps([1, 2]), "no 'data'"),
        (pickle.dumps({b"data": np.zeros((2, 3072)), b"labels": [1, 2]}), "not of bytes"),
        (pickle.dumps({b"data": np.zeros((2, 9), np.uint8), b"labels": [1, 2]}), "no 'data' of n x 3,072 bytes"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8)}), "no 'labels'"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, "2"]}), "no 'labels'"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), r"labels are int64 \(1,\)"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 10]}), "labels from 1 to 10"),
    ],
)
def test_pickles_with_code_or_other_things_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, word: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = put_batches(tmp_path / "d") / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(content)
    with pytest.raises(UserError, match=word) as caught:
        load("cifar10", tmp_path / "d")
    assert "data_batch_3" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harmed").exists()
    assert not [
        path
        for path in (tmp_path / "d" / ".rmaat_cache").iterdir()
        if path.name.startswith("cifar10") and path.is_dir()
    ]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mangled_batches_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(python2_pickle(COLOUR[:1].reshape(1, -1), [3]))
    outside_pixels = [*range(230), *range(len(content) - 4, len(content))]
    for place in data.draw(st.lists(st.sampled_from(outside_pixels), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "batch"
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, 2 * len(content)))])
    try:
        levels, labels = image_files._read_batch(CIFAR10.info, path)
    except UserError as error:
        message = str(error)
    else:
        assert levels.shape == (len(labels), 32, 32)
        return
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"x_train": np.zeros((50, 28, 28), np.uint8)}, r"x?train: the images are uint8 \(50, 28, 28\)"),
        ({"x_test": np.zeros((10, 32, 32))}, "test: the images are float64"),
        ({"y_train": np.zeros(49, int)}, r"the labels are int64 \(49,\)"),
        ({"y_test": np.full(10, 10)}, "labels from 10 to 10, not 0 to 9"),
        ({"x_train": np.zeros((5, 32, 32), np.uint8), "y_train": np.zeros(5, int)}, "5 images for training"),
        ({"y_test": np.array([Harmful()], object)}, "Object arrays cannot be loaded"),
    ],
)
def test_compact_file_of_something_else(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    put_compact(tmp_path, **changes)
    with pytest.raises(UserError, match=word) as caught:
        load("cifar10", tmp_path)
    assert "cifar10_gray.npz" in str(caught.value)


@pytest.mark.parametrize(
    ("task", "origin"),
    [("mnist", "LeCun, Cortes and Burges"), ("fashion_mnist", "zalandoresearch/fashion-mnist on GitHub")],
)
def test_missing_idx_files_say_whose_they_are(tmp_path: Path, task: str, origin: str) -> None:
    with pytest.raises(UserError, match=rf"{task}\.npz is missing .*idx3-ubyte\.gz .*{origin}.* into the folder"):
        load(task, tmp_path)


def test_cut_off_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cifar10_gray\.npz is missing .*--download"):
        load("cifar10", tmp_path)
    path = put_compact(tmp_path) / "cifar10_gray.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"cifar10_gray\.npz: not a whole \.npz file"):
        load("cifar10", tmp_path)


def test_pictures_to_ids_and_back(tmp_path: Path) -> None:
    levels = grey(COLOUR)[0, :28, :28]
    Image.fromarray(levels).save(tmp_path / "a.png")
    ids = MNIST.encode(str(tmp_path / "a.png"))
    assert (ids == levels.reshape(-1)).all()
    lines = MNIST.decode(ids).split("\n")
    assert [len(line) for line in lines] == [28] * 28
    with pytest.raises(UserError, match="28 x 28 pixels, not 32 x 32"):
        CIFAR10.encode(str(tmp_path / "a.png"))
    (tmp_path / "b.png").write_bytes(b"text")
    for name, word in (("b.png", "no picture"), ("c.png", "cannot be read")):
        with pytest.raises(UserError, match=rf"^(?!.*{name}).*{word}"):
            MNIST.encode(str(tmp_path / name))


def test_contact_sheet_holds_every_image(tmp_path: Path) -> None:
    levels = grey(COLOUR)[:5]
    contact_sheet(list(levels), tmp_path / "sheet.png", scale=2)
    with Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())) as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (2 * 66 - 2, 3 * 66 - 2)
    assert (sheet[66:130:2, 66:130:2] == levels[4]).all()
    with pytest.raises(UserError, match="cannot be written"):
        contact_sheet(list(levels), tmp_path / "none" / "sheet.png")


@pytest.mark.parametrize("name", ["cifar10", "mnist", "fashion_mnist"])
def test_the_real_files(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path))
    info = TASKS[name].info
    dataset = load(name, shared_data)
    assert tuple(map(len, dataset.values())) == info.sizes
    levels = {
        split: part.data.column("input_ids").combine_chunks().values.to_numpy().reshape(len(part), info.max_seq_len)
        for split, part in dataset.items()
    }
    rows = {split: {row.tobytes() for row in of_part} for split, of_part in levels.items()}
    assert [len(found) for found in rows.values()] == list(info.sizes)
    assert not rows["test"] & (rows["train"] | rows["validation"])
    assert not rows["validation"] & rows["train"]
    official = np.concatenate([levels["train"], levels["validation"]])
    assert official.mean() == pytest.approx(info.value_mean, abs=1e-3)
    assert official.std() == pytest.approx(info.value_std, abs=1e-3)
    counts = np.bincount(dataset["test"]["labels"])
    assert len(counts) == 10
    assert counts.min() > 800
