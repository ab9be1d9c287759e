"""The gate in front of the page: hosts, origins, paths, sizes, and what the browser may load."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from rmaat.serve.guard import CONTENT_POLICY, Guard

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class Echo:
    """An application that answers with the body of the request."""

    def __init__(self) -> None:
        self.paths = list[str]()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.paths.append(scope["path"])
        message = await receive()
        assert not message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": message["body"]})


def request(
    path: str = "/", parts: Sequence[bytes] = (b"",), hosts: frozenset[str] | None = HOSTS, **headers: str
) -> tuple[int, dict[bytes, bytes], bytes, list[str]]:
    """Return status, headers and body of the answer, and the paths that the application saw."""
    echo, sent = Echo(), list[Any]()
    pieces = [
        {"type": "http.request", "body": part, "more_body": index < len(parts) - 1} for index, part in enumerate(parts)
    ]

    async def receive() -> Any:
        return pieces.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    asyncio.run(Guard(echo, hosts, most_bytes=100)(scope, receive, send))
    start, body = sent
    return start["status"], dict(start["headers"]), body["body"], echo.paths


def test_a_request_of_the_page_passes_with_its_whole_body_and_gets_the_policy():
    status, headers, body, paths = request("/gradio_api/call/predict", [b"a" * 60, b"b" * 40])
    assert (status, body, paths) == (200, b"a" * 60 + b"b" * 40, ["/gradio_api/call/predict"])
    assert headers == {b"a": b"b", b"content-security-policy": CONTENT_POLICY.encode()}
    assert "http" not in CONTENT_POLICY, "no other computer"
    assert "*" not in CONTENT_POLICY


@pytest.mark.parametrize("path", ["/", "/config", "/assets/a.js", "/static/fonts/a.woff2", "/gradio_api/queue/data"])
def test_paths_that_the_page_needs(path):
    assert request(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/docs",
        "/static/../../etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=https://example.org/a",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/upload",
        "/gradio_api/proxy=https://example.org",
        "/gradio_api/component_server",
        "/gradio_api/run/predict",
        "/gradio_api/runs",
        "/gradio_api/stream/a",
        "/monitoring/a",
    ],
)
def test_other_paths_do_not_reach_the_application(path):
    status, _, _, paths = request(path)
    assert status == 404
    assert paths == []


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:7860", 200), ("[::1]:7860", 200), ("evil.example:7860", 421), ("", 421), ("127.0.0.1.evil", 421)],
)
def test_names_of_others_for_this_computer_are_refused(host, status):
    assert request(host=host)[0] == status
    assert request(host=host, hosts=None)[0] == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:7860", 200), ("https://evil.example", 403), ("http://127.0.0.1:80", 403), ("null", 403)],
)
def test_requests_of_other_pages_are_refused(origin, status):
    assert request("/gradio_api/call/predict", origin=origin)[0] == status


def test_long_bodies_are_refused_with_and_without_their_length():
    for parts, headers in (([b"a" * 60, b"b" * 41], {}), ([b""], {"content_length": "101"})):
        status, _, body, paths = request("/gradio_api/call/predict", parts, **headers)
        assert status == 413
        assert b"more than 100 bytes; see --max_bytes" in body
        assert paths == []
    assert request(content_length="minus")[0] == 413


def test_a_closed_connection_does_not_reach_the_application():
    async def closed() -> None:
        async def receive() -> Any:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError(message)

        scope = {"type": "http", "path": "/", "headers": [(b"host", b"localhost")]}
        await Guard(send, HOSTS, 100)(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(closed())
