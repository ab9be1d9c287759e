"""The server of the page: an address is bound, and requests are answered until Ctrl-C."""

import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable

from rmaat.errors import UserError, quoted
from rmaat.serve.answers import Answers
from rmaat.serve.guard import Guard

BYTES_IN_JSON = 6
"""Most bytes of a request for one byte of a text: a control character becomes \\u0000."""

ENVELOPE = 2**16
"""Bytes of a request beside the text."""

CLOSING_SECONDS = 1
"""Seconds that answers under way have to end after Ctrl-C."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address; the system chooses a port for 0.

    Raises:
        UserError: if the address is wrong, not of this computer, or in use.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"port must be from 0 to 65535, got {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise UserError(f"host {quoted(host)}: {getattr(error, 'strerror', None) or error}") from error
    try:
        # On Windows this option would let two programs have one port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(os.name != "nt"))
        listener.bind(address)
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(f"port {port} of {host}: {error.strerror or error}; choose another --port") from error
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Return True if only this computer reaches the socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def address(listener: socket.socket, host: str) -> str:
    """Return the address of the page on a socket."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"


def serve(
    answers: Answers, name: str, passages: int, listener: socket.socket, host: str, ready: Callable[[], None]
) -> None:
    """Answer requests until a signal ends the process.

    Args:
        answers: the answers of a run.
        name: the run's name.
        passages: number of passages that get a frame.
        listener: the socket of `bind`.
        host: the host that the socket was bound to.
        ready: called when the page can be opened.
    """
    # The user's settings of Gradio could open files, a tunnel or a protocol that this page closes.
    for variable in [variable for variable in os.environ if variable.startswith("GRADIO_")]:
        del os.environ[variable]
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory(prefix="rmaat-serve-") as folder:
        # Nothing is stored there, because the gate refuses uploads.
        os.environ["GRADIO_TEMP_DIR"] = folder
        import uvicorn

        from rmaat.serve.page import application

        hosts = frozenset({host, "localhost", "127.0.0.1", "::1"}) if is_loopback(listener) else None
        guard = Guard(application(answers, name, passages), hosts, BYTES_IN_JSON * answers.max_bytes + ENVELOPE)
        config = uvicorn.Config(
            guard,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        ready()
        uvicorn.Server(config).run(sockets=[listener])
