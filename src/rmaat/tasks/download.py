"""Fetch published archives: resume a broken transfer, check the MD5, and unpack without trust.

pooch and the downloads of `datasets` cannot resume: they begin a broken transfer anew.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from io import FileIO
from pathlib import Path

from rmaat.errors import UserError
from rmaat.machine.files import check_free_space, scratch_folder
from rmaat.machine.locks import locked
from rmaat.tasks.base import Progress, ProgressBar, no_bar

CHUNK = 2**20

TIMEOUT_SECONDS = 60
"""After so long without a byte the transfer is given up. What was received is kept."""


@dataclass(frozen=True)
class Download:
    """A published .tar.gz archive that holds one folder."""

    url: str
    md5: str | None
    """The published MD5, if there is one."""
    folder: str
    """The folder that the archive holds."""
    page: str
    """The page that describes the data."""

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
    """Return the folders to search for the Long Range Arena's release.

    Its archive unpacks into a folder of the same name within a folder.
    """
    release = data_dir / LRA_RELEASE.folder
    return release, release / LRA_RELEASE.folder


def fetch(download: Download, data_dir: Path, bar: ProgressBar = no_bar, url: str | None = None) -> Path:
    """Fetch an archive and unpack it.

    The archive stays in `<data_dir>/downloads`. A call that was interrupted is continued by the
    next one. The folder appears whole or not at all.

    Args:
        download: the archive.
        data_dir: the data folder.
        bar: counts bytes, of the transfer and then of the archive that is unpacked.
        url: another address of the same archive.

    Returns:
        The folder `<data_dir>/<download.folder>`.

    Raises:
        UserError: if the folder is there already, the address refuses or breaks off, the MD5
            differs, or the archive is damaged or would write outside its folder.
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
                _fetch_archive(download, archive, bar)
            with bar(f"unpacking {download.name}", archive.stat().st_size) as progress:
                _unpack(archive, download, folder, progress)
    except OSError as error:
        raise UserError(
            f"{data_dir} cannot be written ({error.strerror or error}); choose another --data_dir"
        ) from error
    return folder


def _fetch_archive(download: Download, archive: Path, bar: ProgressBar) -> None:
    """Fetch into a `.part` file, which is renamed once it is complete and its MD5 is right."""
    part = archive.with_suffix(".part")
    received = part.stat().st_size if part.is_file() else 0
    with _open_url(download, archive.parent, received) as response:
        if response is not None:
            if response.status != 206:
                received = 0  # the server ignored the range and sends everything
            total = _total_bytes(response)
            if total is not None:
                check_free_space(archive.parent, total - received)
            with bar(f"fetching {download.name}", total) as progress:
                progress(received)
                _receive(download, response, part, received, total, progress)
    _check_md5(download, part)
    part.replace(archive)


@contextmanager
def _open_url(download: Download, folder: Path, start: int) -> Iterator[HTTPResponse | None]:
    """Yield the server's response from byte `start` on; None if there is nothing after it."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    by_hand = (
        f"fetch {download.name} by hand (see {download.page}) and unpack it so that "
        f"{folder.parent / download.folder} is its folder"
    )
    try:
        request = Request(download.url, headers={"Range": f"bytes={start}-"} if start else {})
    except ValueError as error:
        raise UserError(f"'{download.url}' is no address; give one that begins with https://") from error
    try:
        response = urlopen(request, timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:  # the range is empty: everything was received before
            yield None
            return
        raise UserError(f"{download.url} answers {error.code} {error.reason}; {by_hand}") from error
    except (URLError, HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{download.url} cannot be reached ({reason}); try again later, or {by_hand}") from error
    with response:
        yield response


def _total_bytes(response: HTTPResponse) -> int | None:
    """Return the size of the whole archive, if the server sends it."""
    content_range = re.fullmatch(r"bytes \d+-\d+/(\d+)", response.headers.get("Content-Range", ""))
    if content_range:
        return int(content_range[1])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and response.status != 206 else None


def _receive(
    download: Download, response: HTTPResponse, part: Path, received: int, total: int | None, progress: Progress
) -> None:
    with part.open("r+b" if received else "wb") as file:
        file.seek(received)
        while True:
            try:
                chunk = response.read(CHUNK)
            except (HTTPException, OSError) as error:
                raise _interrupted(download, received, total) from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            progress(len(chunk))
    if total is not None and received < total:
        raise _interrupted(download, received, total)


def _interrupted(download: Download, received: int, total: int | None) -> UserError:
    of_total = f" of {total:,}" if total is not None else ""
    return UserError(
        f"{download.url} broke off after {received:,}{of_total} bytes; run the same command again to go on from there"
    )


def _check_md5(download: Download, part: Path) -> None:
    if download.md5 is None:
        return
    with part.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    if md5 != download.md5:
        part.unlink()
        raise UserError(
            f"{download.url}: the MD5 of the archive is {md5}, the published one is {download.md5}; "
            "it was removed, run the same command again"
        )


class _CountedFile(FileIO):
    """A file that reports how many bytes were read."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(path)
        self._progress = progress

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(-1 if size is None else size) or b""
        self._progress(len(content))
        return content


def _unpack(archive: Path, download: Download, folder: Path, progress: Progress) -> None:
    # Unpack beside the place and rename at the end. A process that was killed may have left this
    # folder; because this process holds the lock, no other is using it.
    try:
        with scratch_folder(folder.parent / f".{folder.name}.unpacking") as unpacking:
            with _CountedFile(archive, progress) as packed, gzip.open(packed) as stream:
                with tarfile.open(fileobj=stream, mode="r:") as tar:
                    # The filter strips leading slashes and refuses devices and paths that lead outside.
                    tar.extractall(unpacking, filter="data")
                # tarfile stops before the end of the stream, where gzip compares length and checksum.
                while stream.read(CHUNK):
                    pass
            if not (unpacking / folder.name).is_dir():
                names = sorted(path.name for path in unpacking.iterdir())[:5]
                raise UserError(f"{archive} holds {', '.join(names) or 'nothing'}, not the folder {folder.name}")
            (unpacking / folder.name).replace(folder)
    except tarfile.FilterError as error:
        raise UserError(f"{archive}: refused, nothing was unpacked ({error}); fetch it from {download.url}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{archive}: not a whole .tar.gz file ({error}); remove it and fetch it again") from error
