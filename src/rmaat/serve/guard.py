"""A gate in front of the page: it refuses requests that the page and its endpoints do not need.

Gradio's server can do more than this page needs. It stores uploads, sends files of the computer,
and fetches addresses for its clients. None of these paths passes the gate.
"""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]
"""The types of ASGI, the interface between a Python web server and its application."""

PATHS = re.compile(
    r"(?!.*\.\.)/(config|monitoring/summary|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.+)?"
    r"|/gradio_api/(info|app_id|theme\.css|startup-events|heartbeat/\w+|queue/(join|data)|call/.+|cancel|reset)/?"
)
"""The paths that the page, its endpoints and Gradio's Python client use."""

CONTENT_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'none'; object-src 'none'"
)
"""What the browser may load: nothing of other computers. Gradio's own page needs inline scripts."""


class Guard:
    """An ASGI application that answers some requests itself and hands the others on.

    It refuses a host that is not among `hosts`, because a web page of others can let its own name
    stand for this computer. It refuses requests that a page of others made, other paths, and bodies
    that are too long.

    Args:
        app: the application behind the gate.
        hosts: the names of this computer in addresses, without port; None means any.
        most_bytes: most bytes of a request's body.
    """

    def __init__(self, app: Application, hosts: frozenset[str] | None, most_bytes: int) -> None:
        self._app = app
        self._hosts = hosts
        self._most_bytes = most_bytes

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer or hand on one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(scope["path"], headers):
            await _answer(send, *refusal)
            return
        # The body is at most some megabytes, so read it before the application sees the request.
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            if len(body) > self._most_bytes:
                await _answer(send, 413, self._too_long())
                return
            more = message.get("more_body", False)
        remaining: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def receive_again() -> Message:
            return remaining.pop() if remaining else await receive()

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_POLICY.encode())
                message["headers"] = [*message.get("headers", ()), policy]
            await send(message)

        await self._app(scope, receive_again, send_with_policy)

    def _refusal(self, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Return the status and the text of a refusal, or None if the request may pass."""
        host = headers.get("host", "")
        if self._hosts is not None and urlsplit(f"//{host}").hostname not in self._hosts:
            return 421, "this page is served to this computer only; see `rmaat serve --help`"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "a page of another site made this request"
        if not PATHS.fullmatch(path):
            return 404, "there is no such page"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most_bytes:
            return 413, self._too_long()
        return None

    def _too_long(self) -> str:
        return f"the request has more than {self._most_bytes:,} bytes; see --max_bytes of `rmaat serve`"


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{text}\n".encode()})
