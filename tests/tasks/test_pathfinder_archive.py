"""The archive of Pathfinder images: whole or refused, and never half written."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaat.errors import UserError
from rmaat.tasks.pathfinder import archive as archive_module
from rmaat.tasks.pathfinder.archive import PathfinderArchive, read_archive, write_archive


@pytest.fixture(scope="module")
def small() -> PathfinderArchive:
    rng = np.random.default_rng(9)
    images = rng.integers(256, size=(6, 32, 32), dtype=np.uint8)
    return PathfinderArchive(images, np.array([0, 1, 1, 0, 0, 1], np.uint8), difficulty="easy", seed=9)


def assert_same(one: PathfinderArchive, other: PathfinderArchive) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.difficulty, one.seed) == (other.difficulty, other.seed)


def test_archive_returns_what_it_was_given(small: PathfinderArchive, tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        write_archive(tmp_path / name, small)
    assert_same(read_archive(tmp_path / "a.npz"), small)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_archive(
    small: PathfinderArchive, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "data.npz"
    write_archive(path, small)
    content = bytearray(path.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:where]
    else:
        content[where] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        found = read_archive(path)
    except UserError as error:
        message = str(error)
    else:
        assert_same(found, small)  # the damage met a date or another field without meaning
        return
    assert message.startswith(str(path))
    assert "\n" not in message


def test_truncated_archive(small: PathfinderArchive, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    write_archive(path, small)
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"data\.npz"):
            read_archive(path)


def test_flipped_pixel_is_found_by_the_checksum(small: PathfinderArchive, tmp_path: Path) -> None:
    """Stored without compression, a changed pixel breaks nothing but the checksum."""
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.savez(
            file, images=small.images, labels=small.labels, difficulty="easy", seed=9, version=archive_module.VERSION
        )
    assert_same(read_archive(path), small)
    content = path.read_bytes()
    where = content.index(small.images[3].tobytes()) + 500
    path.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
    with pytest.raises(UserError, match=r"checksum of 'images\.npy' does not match"):
        read_archive(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return pytest.fail, ("the archive was unpickled",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.array([Bomb()], dtype=object)}, "Object arrays cannot be loaded"),
        ({"difficulty": np.array(Bomb(), dtype=object)}, "Object arrays cannot be loaded"),
        ({"difficulty": np.array("heavy")}, "unknown difficulty 'heavy'"),
        ({"version": np.array(99)}, "version 99"),
        ({"seed": np.array(1.5)}, "the seed is not a whole number"),
        ({"images": np.zeros((6, 28, 28), np.uint8)}, r"images are uint8 \(6, 28, 28\)"),
        ({"images": np.zeros((6, 32, 32))}, "images are float64"),
        ({"labels": np.zeros(5, np.uint8)}, r"labels are uint8 \(5,\)"),
        ({"labels": np.full(6, 2, np.uint8)}, "labels are not zeros and ones"),
        ({"labels": None}, "labels.npy"),
    ],
)
def test_archive_of_something_else(
    small: PathfinderArchive, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    arrays: dict[str, Any] = {**vars(small), "version": np.array(archive_module.VERSION), **change}
    path = tmp_path / "other.npz"
    with path.open("wb") as file:
        np.savez(file, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=message) as caught:
        read_archive(path)
    assert str(path) in str(caught.value)


def test_file_that_is_no_archive(small: PathfinderArchive, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(UserError, match="no such file"):
        read_archive(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"data\.npz"):
        read_archive(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../images.npy", b"x")
    with pytest.raises(UserError, match=r"data\.npz"):
        read_archive(path)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (((((, }"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(UserError, match=r"data\.npz"):
        read_archive(path)
    with pytest.raises(UserError, match="cannot be written"):
        write_archive(tmp_path / "missing" / "data.npz", PathfinderArchive(small.images, small.labels, "easy", 0))


def test_interrupted_writing_leaves_the_old_file(
    small: PathfinderArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.npz"
    write_archive(path, small)

    def interrupted(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(archive_module.np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_archive(path, small)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.npz"]
    assert_same(read_archive(path), small)
