"""Downloads from a server on the loopback address: resumed, checked, unpacked safely, and refused in one line."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.tasks import download as module
from rmaat.tasks.base import Progress
from rmaat.tasks.download import ACL_IMDB, CIFAR_10, LRA_RELEASE, Download, fetch


class Server(ThreadingHTTPServer):
    """Serves `content`; `cut` breaks off after so many bytes of an answer, `ranges` tells whether it resumes."""

    content = b""
    cut: int | None = None
    ranges = True
    status: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/a.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = 10

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status is not None:
            self.send_error(server.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start:][: server.cut])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join(timeout=10)


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


CONTENT = tar_of(("data/a.txt", b"a" * 100_000), ("data/sub/b.txt", b"b"))


def what(server: Server, content: bytes = CONTENT, md5: str | None = "right") -> Download:
    server.content = content
    published = hashlib.md5(content).hexdigest() if md5 == "right" else md5
    return Download(server.url, published, "data", "http://127.0.0.1/page")


class Bar:
    """The bytes done and the total of each bar, by its description."""

    def __init__(self) -> None:
        self.shown: dict[str, tuple[int, int | None]] = {}

    def __call__(self, description: str, total: int | None) -> AbstractContextManager[Progress]:
        self.shown[description] = (0, total)

        def progress(done: int) -> None:
            self.shown[description] = (self.shown[description][0] + done, total)

        return nullcontext(progress)


def check_unpacked(data_dir: Path) -> None:
    found = {str(path.relative_to(data_dir)) for path in (data_dir / "data").rglob("*") if path.is_file()}
    assert found == {"data/a.txt", "data/sub/b.txt"}
    assert not [path for path in data_dir.iterdir() if path.name.endswith(".unpacking")]


def test_fetched_checked_unpacked_and_told(server: Server, tmp_path: Path) -> None:
    bar = Bar()
    folder = fetch(what(server), tmp_path, bar)
    assert folder == tmp_path / "data"
    check_unpacked(tmp_path)
    whole = (len(CONTENT), len(CONTENT))
    assert bar.shown == {"fetching a.tar.gz": whole, "unpacking a.tar.gz": whole}
    with pytest.raises(UserError, match="data is there already"):
        fetch(what(server), tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_broken_off_and_resumed(server: Server, tmp_path: Path, ranges: bool) -> None:
    asked = what(server)
    server.cut, server.ranges = 50, ranges
    with pytest.raises(UserError, match=rf"broke off after 50 of {len(CONTENT):,} bytes; run the same command again"):
        fetch(asked, tmp_path)
    assert not (tmp_path / "data").exists()
    server.cut = None
    bar = Bar()
    fetch(asked, tmp_path, bar)
    check_unpacked(tmp_path)
    assert server.asked == [None, "bytes=50-"]
    assert bar.shown["fetching a.tar.gz"] == (len(CONTENT), len(CONTENT))


def test_all_there_but_not_yet_checked(server: Server, tmp_path: Path) -> None:
    asked = what(server)
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "data.tar.part").write_bytes(CONTENT)
    fetch(asked, tmp_path)
    check_unpacked(tmp_path)


def test_killed_while_unpacking(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise KilledError

    asked = what(server)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_unpack", killed)
        with pytest.raises(KilledError):
            fetch(asked, tmp_path)
    (tmp_path / ".data.unpacking" / "data").mkdir(parents=True)
    fetch(asked, tmp_path)
    check_unpacked(tmp_path)
    assert len(server.asked) == 1  # the archive was there


def test_a_wrong_checksum_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the MD5 of the archive is [0-9a-f]{32}, the published one is 0123"):
        fetch(what(server, md5="0123"), tmp_path)
    assert [path.name for path in (tmp_path / "downloads").iterdir() if path.suffix != ".lock"] == []
    assert not (tmp_path / "data").exists()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (tar_of(("data/a", b"a"), ("../out.txt", b"x")), "refused, nothing was unpacked"),
        (tar_of(("data/../../out.txt", b"x")), "refused, nothing was unpacked"),
        (tar_of(link("data/l", "../../..")), "refused, nothing was unpacked"),
        (tar_of(link("data/l", "../../out", tarfile.LNKTYPE)), "refused, nothing was unpacked|not a whole"),
        (tar_of(link("data/d", "", tarfile.CHRTYPE)), "refused, nothing was unpacked"),
        (tar_of(("other/a", b"a")), "holds other, not the folder data"),
        (CONTENT[:-20], "not a whole .tar.gz file"),
        (CONTENT[:-6] + b"xxxxxx", "not a whole .tar.gz file"),
        (b"<html>", "not a whole .tar.gz file"),
    ],
    # The content of an archive holds the time, and two processes must collect equal names.
    ids=("climbs", "climbs within", "link", "hard link", "device", "other folder", "cut", "damaged", "no archive"),
)
def test_archives_that_climb_out_or_are_damaged(server: Server, tmp_path: Path, content: bytes, word: str) -> None:
    data_dir = tmp_path / "inner" / "d"
    with pytest.raises(UserError, match=word) as caught:
        fetch(what(server, content), data_dir)
    assert "\n" not in str(caught.value)
    assert {path.name for path in data_dir.iterdir()} == {"downloads"}
    assert {path.name for path in (tmp_path / "inner").iterdir()} == {"d"}


def test_absolute_paths_stay_inside(server: Server, tmp_path: Path) -> None:
    content = tar_of(("data/a", b"a"), (f"{tmp_path}/out.txt", b"x"))
    fetch(what(server, content), tmp_path / "d")  # the filter takes the leading slash away
    assert not (tmp_path / "out.txt").exists()
    assert not list((tmp_path / "d").rglob("out.txt"))


@pytest.mark.parametrize(("status", "word"), [(403, "answers 403 Forbidden"), (404, "answers 404 Not Found")])
def test_a_refusal_says_what_to_fetch_from_where_into_where(
    server: Server, tmp_path: Path, status: int, word: str
) -> None:
    server.status = status
    with pytest.raises(UserError, match=word) as caught:
        fetch(replace(LRA_RELEASE, url=f"{server.url}/lra_release.gz"), tmp_path)
    for part in ("lra_release.gz by hand", "google-research/long-range-arena", str(tmp_path / "lra_release")):
        assert part in str(caught.value)


def test_no_server_and_no_address(server: Server, tmp_path: Path) -> None:
    server.server_close()
    with pytest.raises(UserError, match="cannot be reached"):
        fetch(what(server), tmp_path)
    with pytest.raises(UserError, match="'nonsense' is no address"):
        fetch(CIFAR_10, tmp_path, url="nonsense")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        fetch(CIFAR_10, tmp_path / "file", url=server.url)


def test_published_checksums() -> None:
    # As the pages of the two data sets, and the loaders that many use, give them.
    assert CIFAR_10.md5 == "c58f30108f718f92721af3b95e74349a"
    assert ACL_IMDB.md5 == "7c2ac02c03563afcf9b574c7e56c153a"


def test_from_the_command_line(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server.content = tar_of(("aclImdb/x", b""))
    command = ["data", "imdb", "--download", "--data_dir", str(tmp_path), "--url", server.url]
    assert main(command) == 2  # a mirror's archive must have the published checksum too
    assert "the published one is 7c2ac02c" in capsys.readouterr().err
    for arguments, word in (
        (["mnist", "--download"], "mnist has no published archive"),
        (["imdb", "--url", server.url], "--url has no effect without --download"),
    ):
        assert main(["data", *arguments, "--data_dir", str(tmp_path)]) == 2
        assert word in capsys.readouterr().err
