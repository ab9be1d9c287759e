"""A page that is served in a process of its own."""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Served:
    """A page in a process.

    Attributes:
        run: the folder of its run.
        url: the address of the page.
        process: the process.
        temporary: the folder of its temporary files.
    """

    run: Path
    url: str
    process: "subprocess.Popen[str]"
    temporary: Path

    def interrupt(self) -> tuple[int, str]:
        """Press Ctrl-C; return the exit status and the rest of the output."""
        self.process.send_signal(signal.SIGINT)
        output, _ = self.process.communicate(timeout=240)
        return self.process.returncode, output


@pytest.fixture(scope="module")
def served(own_text_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The page of a run, whose process has tried no other address when it ends."""
    pytest.importorskip("gradio", reason="needs the extra 'serve'")
    temporary = tmp_path_factory.mktemp("temporary")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        # Clients of HTTP would ask this proxy for other computers. It never answers.
        outside = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"), outside)
        process = subprocess.Popen(
            [sys.executable, "-m", "rmaat", "serve", str(own_text_run), "--port", "0", "--max_bytes", "40000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A shell that starts the tests in the background lets its children ignore Ctrl-C.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            # Settings of Gradio that would open files to others have no effect.
            env={
                **os.environ,
                **proxies,
                "TMPDIR": str(temporary),
                "GRADIO_ALLOWED_PATHS": "/",
                "GRADIO_SHARE": "true",
            },
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert " is served on http://127.0.0.1:" in line, line + process.stdout.read()
            yield Served(own_text_run, line.split(" is served on ")[1].split()[0], process, temporary)
        finally:
            process.kill()
            process.wait()
        connections, _, _ = select.select([proxy], [], [], 0)
        assert not connections, "the server called another computer"
