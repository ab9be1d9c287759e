"""Getting published archives: resumed where cut off, checked, and unpacked without trust."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from io import FileIO
from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import scratch_folder
from rmaat.machine.locks import locked

CHUNK = 2**20

SECONDS_OF_SILENCE = 60
"""After so long without a byte the connection is given up; what has come is kept."""


@dataclass(frozen=True)
class Download:
    """A published .tar.gz: its address, its MD5 where one is published, the one folder it holds, and where it is told of."""

    url: str
    md5: str | None
    folder: str
    page: str

    @property
    def name(self) -> str:
        """The archive's file name."""
        return self.url.rpartition("/")[2]


CIFAR_10 = Download(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    folder="cifar-10-batches-py",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
)

ACL_IMDB = Download(
    url="https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    md5="7c2ac02c03563afcf9b574c7e56c153a",
    folder="aclImdb",
    page="https://ai.stanford.edu/~amaas/data/sentiment/",
)

LRA_RELEASE = Download(
    url="https://storage.googleapis.com/long-range-arena/lra_release.gz",
    md5=None,
    folder="lra_release",
    page="https://github.com/google-research/long-range-arena",
)


def release_folders(data_dir: Path) -> tuple[Path, ...]:
    """Where the Long Range Arena's release is looked for: unpacked with or without its outer folder."""
    release = data_dir / LRA_RELEASE.folder
    return release, release / LRA_RELEASE.folder


Told = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many, where the server says."""

BytesBar = Callable[[str], AbstractContextManager[Told]]
"""Shows a bar while the context is open: what is being done."""


def no_bytes_bar(description: str) -> AbstractContextManager[Told]:
    """The `BytesBar` that shows nothing."""
    return nullcontext(lambda done, total: None)


def fetch(download: Download, data_dir: Path, bar: BytesBar = no_bytes_bar, url: str | None = None) -> Path:
    """Get an archive and unpack it as `<data_dir>/<folder>`, with a `bar` for either; returns that folder.

    The archive is kept in `<data_dir>/downloads`. Cut off at any moment, the next call goes on from there; the folder
    appears whole or not at all. `url` is another address of the same archive. Raises `UserError` where the folder is
    there already, the address refuses or breaks off, the checksum differs, or the archive is damaged or would write
    outside its folder.
    """
    if url is not None:
        download = replace(download, url=url)
    folder = data_dir / download.folder
    archives = data_dir / "downloads"
    try:
        archives.mkdir(parents=True, exist_ok=True)
        with locked(archives / f".{download.folder}.lock"):
            if folder.exists():
                raise UserError(f"{folder} is there already; remove it to fetch it anew")
            archive = archives / f"{download.folder}.tar.gz"
            if not archive.is_file():
                with bar(f"fetching {download.name}") as told:
                    _fetch_archive(download, archive, told)
            with bar(f"unpacking {download.name}") as told:
                _unpack(archive, download, folder, told)
    except OSError as error:
        raise UserError(
            f"{data_dir} cannot be written ({error.strerror or error}); choose another --data_dir"
        ) from error
    return folder


def _fetch_archive(download: Download, archive: Path, told: Told) -> None:
    part = archive.with_suffix(".part")
    have = part.stat().st_size if part.is_file() else 0
    with _opened(download, archive.parent, have) as response:
        if response is not None:
            total = _total_bytes(response)
            if response.status != 206:
                have = 0  # the server does not resume
            _check_room(archive.parent, have, total)
            _receive(download, response, part, have, total, told)
    _check_md5(download, part)
    part.replace(archive)


@contextmanager
def _opened(download: Download, folder: Path, have: int) -> Iterator[HTTPResponse | None]:
    """The server's answer, from byte `have` on; None where there is nothing after it."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    by_hand = (
        f"fetch {download.name} by hand (see {download.page}) and unpack it so that "
        f"{folder.parent / download.folder} is its folder"
    )
    try:
        request = Request(download.url, headers={"Range": f"bytes={have}-"} if have else {})
    except ValueError as error:
        raise UserError(f"'{download.url}' is no address; give one that begins with https://") from error
    try:
        response = urlopen(request, timeout=SECONDS_OF_SILENCE)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            yield None
            return
        raise UserError(f"{download.url} answers {error.code} {error.reason}; {by_hand}") from error
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{download.url} cannot be reached ({reason}); try again later, or {by_hand}") from error
    with response:
        yield response


def _total_bytes(response: HTTPResponse) -> int | None:
    found = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    length = response.headers.get("Content-Length", "")
    if found:
        return int(found[1])
    return int(length) if length.isdigit() and response.status != 206 else None


def _check_room(folder: Path, have: int, total: int | None) -> None:
    free = shutil.disk_usage(folder).free
    if total is not None and free < total - have:
        raise UserError(f"{folder} needs {(total - have) / 1e6:,.0f} MB, but its disk has {free / 1e6:,.0f} MB free")


def _receive(download: Download, response: HTTPResponse, part: Path, have: int, total: int | None, told: Told) -> None:
    done = have
    with part.open("r+b" if have else "wb") as file:
        file.seek(have)
        while True:
            try:
                chunk = response.read(CHUNK)
            except (HTTPException, OSError) as error:
                raise _broken_off(download, done, total) from error
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            told(done, total)
    if total is not None and done < total:
        raise _broken_off(download, done, total)


def _broken_off(download: Download, done: int, total: int | None) -> UserError:
    of = f" of {total:,}" if total is not None else ""
    return UserError(
        f"{download.url} broke off after {done:,}{of} bytes; run the same command again to go on from there"
    )


def _check_md5(download: Download, part: Path) -> None:
    if download.md5 is None:
        return
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != download.md5:
        part.unlink()
        raise UserError(
            f"{download.url}: the MD5 of what came is {found}, the published one is {download.md5}; "
            "it was removed, run the same command again"
        )


class _Watched(FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, told: Told) -> None:
        super().__init__(path)
        self._told, self._size = told, path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(-1 if size is None else size)
        self._told(self.tell(), self._size)
        return found or b""


def _unpack(archive: Path, download: Download, folder: Path, told: Told) -> None:
    try:
        with scratch_folder(folder.parent / f".{folder.name}.unpacking") as unpacking:
            with _Watched(archive, told) as packed, gzip.open(packed) as stream:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    # The filter takes leading slashes away and refuses devices and whatever climbs out.
                    tar.extractall(unpacking, filter="data")
                # tarfile stops short of the end, where gzip compares lengths and checksums.
                while stream.read(CHUNK):
                    pass
            if not (unpacking / folder.name).is_dir():
                found = sorted(path.name for path in unpacking.iterdir())[:5]
                raise UserError(
                    f"{archive} holds {', '.join(found) or 'nothing'} where the folder {folder.name} is expected"
                )
            (unpacking / folder.name).replace(folder)
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: refused, nothing was unpacked ({error}); fetch it from {download.url}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive}: not a whole .tar.gz file ({error}); remove it and fetch it again") from error
