"""Open a local page that reads a text segment by segment, with HTTP endpoints for the same answers.

Only this computer reaches the page, unless --host names another address. Ctrl-C ends it.
"""

import importlib.util
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from rmaat.errors import UserError, printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the flags of `rmaat serve`."""
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="address of this computer to listen on")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on; 0 takes a free one")
    parser.add_argument("--max_bytes", type=int, default=2**20, help="most bytes of a text, or of all texts of a batch")
    parser.add_argument("--passages", type=int, default=3, help="number of decisive passages to frame")
    parser.add_argument("--browser", type=bool, default=False, help="open the page in the web browser")


def run(arguments: Namespace) -> None:
    """Serve the page until Ctrl-C."""
    if importlib.util.find_spec("gradio") is None:
        raise UserError("serve needs the package gradio; install it with `pip install 'rmaat[serve]'`")
    if arguments.passages < 0:
        raise UserError(f"passages must be at least 0, got {arguments.passages}")
    from rmaat.training.run_folder import check_is_run

    # Before the imports below, which take seconds.
    check_is_run(arguments.run)
    import webbrowser

    from rmaat.serve.answers import Answers
    from rmaat.serve.server import address, bind, is_loopback, serve
    from rmaat.training.finished_run import open_classifier
    from rmaat.training.run import device

    # Bind first: a port in use shows at once, and requests wait while the model is read.
    with bind(arguments.host, arguments.port) as listener:
        finished = open_classifier(arguments.run)
        finished.model.to(device())
        answers = Answers(finished, arguments.max_bytes)
        if not is_loopback(listener):
            print(
                f"rmaat: warning: every computer that reaches {arguments.host} can use this page; "
                "it has no password and no encryption",
                file=sys.stderr,
            )
        url = address(listener, arguments.host)

        def ready() -> None:
            print(f"{printable(str(arguments.run))} is served on {url} (Ctrl-C ends it)", flush=True)
            if arguments.browser:
                webbrowser.open(url)

        serve(answers, arguments.run.resolve().name, arguments.passages, listener, arguments.host, ready)
