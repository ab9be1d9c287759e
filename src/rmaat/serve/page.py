"""The page and the HTTP endpoints, in Gradio."""

import base64
import binascii
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio
from fastapi import FastAPI

from rmaat.errors import UserError, printable, quoted, shortened
from rmaat.serve.answers import Answers, Row
from rmaat.serve.drawing import escaped, marked, memory_curve, probability_curves, problem, summary, table
from rmaat.training.explanation import explanation_of

Parts = tuple[str, str, str, str, str]
"""HTML of the summary, the probabilities, the memory, the table and the marked text."""

INTERVAL = 0.2
"""Seconds between two drawings, because the browser draws slower than the model reads."""

WAITING = 32
"""Most requests that wait for the model; further ones are refused."""

DROP_ZONE = '<label class="drop">Drop a text file here, or <u>choose one</u><input type="file"></label>'

CSS = """
.drop {display: block; position: relative; padding: 1.2em; text-align: center; cursor: pointer;
  border: 2px dashed var(--border-color-primary); border-radius: var(--radius-lg)}
.drop.over, .drop:focus-within {border-color: var(--color-accent)}
.drop input {position: absolute; inset: 0; width: 100%; height: 100%; opacity: 0; cursor: pointer}
.answer {font-size: 1.6em} .answer span {opacity: 0.75} .facts {opacity: 0.75}
progress {width: 100%; height: 0.5em; accent-color: var(--color-accent)}
.problem {padding: 0.8em; border-left: 4px solid #d62728; background: rgba(214, 39, 40, 0.1)}
.marked {white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6; max-height: 70vh; overflow-y: auto}
.marked mark {color: inherit; border: 2px solid; border-radius: 4px; padding: 0 2px}
figcaption {font-weight: 600} .legend {float: right; font-weight: 400}
figure {min-height: 6em} svg {width: 100%; height: auto} svg text {font-size: 12px; fill: currentColor; opacity: 0.7}
svg .grid {stroke: currentColor; opacity: 0.2} svg polyline {fill: none; stroke-width: 2}
#rows {max-height: 20em; overflow-y: auto}
#rows table {width: 100%; border: 0; border-collapse: collapse}
#rows :is(th, td) {border: 0 solid var(--border-color-primary); border-bottom-width: 1px;
  padding: 0.25em 0.6em; text-align: right}
#rows :is(th, td):last-child {text-align: left; width: 100%}
"""


def application(answers: Answers, name: str, passages: int) -> Any:
    """Return the page of `build` as an ASGI application without Gradio's other services."""
    return gradio.mount_gradio_app(
        # FastAPI's own pages would load parts from other computers.
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        build(answers, name, passages),
        path="/",
        footer_links=["api"],
        run_history=False,
        show_error=False,
        max_file_size=0,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        # The default theme's fonts come with Gradio.
        css=CSS,
    )


def build(answers: Answers, name: str, passages: int) -> gradio.Blocks:
    """Return the page of a run, with its endpoints `predict`, `explain` and `stream`.

    Args:
        answers: the run's answers.
        name: the run's name, for the title.
        passages: number of passages that get a frame.
    """
    # The model computes one answer at a time.
    model: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}

    def of_text(text: str) -> Iterator[Parts]:
        try:
            yield from drawings(answers, passages, text)
        except UserError as error:
            yield failed(error)

    def of_file(event: gradio.EventData) -> Iterator[Parts]:
        try:
            text = answers.document(*uploaded(event, answers.max_bytes))
            yield from drawings(answers, passages, text)
        except UserError as error:
            yield failed(error)

    with gradio.Blocks(title=f"rmaat {printable(name)}", analytics_enabled=False) as blocks:
        gradio.HTML(heading(answers, name))
        with gradio.Row():
            with gradio.Column(scale=2):
                text = gradio.Textbox(label="Document", lines=12, max_lines=12, placeholder="Type or paste a text.")
                drop = gradio.HTML(
                    html_template=DROP_ZONE,
                    js_on_load=Path(__file__).with_name("drop.js").read_text(encoding="utf-8"),
                    most_bytes=answers.max_bytes,
                )
                with gradio.Row():
                    read = gradio.Button("Read", variant="primary")
                    stop = gradio.Button("Stop")
                state = gradio.HTML(elem_id="summary")
            with gradio.Column(scale=3):
                curves, flat = gradio.HTML(elem_id="curves"), gradio.HTML(elem_id="memory")
        document, rows = gradio.HTML(elem_id="document"), gradio.HTML(elem_id="rows")
        outputs = [state, curves, flat, rows, document]  # in the order of `Parts`
        shown: dict[str, Any] = {"outputs": outputs, "show_progress": "hidden", "api_visibility": "private", **model}
        events = [read.click(of_text, text, **shown), drop.upload(of_file, None, **shown)]
        stop.click(None, cancels=events, api_visibility="private")
        for endpoint in endpoints(answers):
            gradio.api(endpoint, api_name=endpoint.__name__, **model)
    blocks.queue(max_size=WAITING, api_open=False)
    return blocks


def drawings(answers: Answers, passages: int, text: str) -> Iterator[Parts]:
    """Yield the page's parts while the model reads; the text is marked at the end.

    Raises:
        UserError: see `Answers.stream`.
    """
    rows: list[Row] = []
    due = 0.0
    for row in answers.stream(text):
        rows.append(row)
        last = row.number == row.reading.segments
        started = time.perf_counter()
        if last or started >= due:
            explanation = explanation_of(answers.run, [row.reading for row in rows])
            yield (
                summary(explanation, row),
                probability_curves(explanation, row.reading.segments),
                memory_curve(rows),
                table(explanation),
                marked(explanation, passages) if last else "",
            )
            # Drawing takes longer with each segment, so it happens less often.
            ended = time.perf_counter()
            due = ended + max(INTERVAL, ended - started)


def failed(error: UserError) -> Parts:
    """Return the page's parts after a mistake of the user."""
    return problem(str(error)), "", "", "", ""


def endpoints(answers: Answers) -> tuple[Callable[[Any], Any], ...]:
    """Return the functions behind the endpoints. Gradio takes names and descriptions from them."""

    def predict(texts: list[str]) -> list[dict[str, Any]]:
        """Label and probabilities of each text, as `rmaat predict` gives them."""
        with refusals():
            return answers.predict(texts)

    def explain(text: str) -> dict[str, Any]:
        """Probabilities after each segment and what it changed, as `rmaat explain` gives them."""
        with refusals():
            return answers.explain(text)

    def stream(text: str) -> Iterator[dict[str, Any]]:
        """Probabilities after each segment, as soon as the model has read it."""
        with refusals():
            for row in answers.stream(text):
                yield row.as_json(answers.label_names)

    return predict, explain, stream


@contextmanager
def refusals() -> Iterator[None]:
    """Send a mistake of the user to the client of an endpoint; other errors stay on the server."""
    try:
        yield
    except UserError as error:
        raise gradio.Error(str(error), print_exception=False) from error


def uploaded(event: gradio.EventData, most_bytes: int) -> tuple[str, bytes]:
    """Return name and content of the file that `drop.js` sent.

    Raises:
        UserError: if the file was too large to send.
    """
    data = event._data or {}
    name, content = data.get("name"), data.get("content")
    if not isinstance(name, str) or not isinstance(content, str | None):
        raise UserError("the page sent no file")
    if content is None:
        raise UserError(f"{quoted(name)} has more than {most_bytes:,} bytes, which this page does not read")
    try:
        return name, base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise UserError(f"{quoted(name)} did not arrive whole: {error}") from error


def heading(answers: Answers, name: str) -> str:
    """Return the heading: the run, its labels, how it reads."""
    config = answers.run.model.config
    labels = ", ".join(answers.label_names)
    return (
        f"<h1>{escaped(printable(name))}</h1><p>Labels: {escaped(shortened(printable(labels)))}. "
        f"The model reads segments of {config.tokens_per_segment:,} tokens. "
        f"A text may have {answers.max_bytes:,} bytes.</p>"
    )
