"""The answers of the page and of its endpoints: those of `rmaat predict` and `rmaat explain`."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmaat.errors import UserError, quoted
from rmaat.machine.memory import memory_of
from rmaat.tasks.inputs import Example, read_text
from rmaat.tasks.records import is_record_file
from rmaat.training.explanation import explain
from rmaat.training.finished_run import FinishedRun
from rmaat.training.inference import Reading, check_readings, predict_many, read_segments

MOST_TEXTS = 1024
"""Most texts of a batch."""


@dataclass(frozen=True)
class Row:
    """A segment that the model has read.

    Attributes:
        number: from 1.
        reading: the segment, and the prediction for the text up to its end.
        seconds: the time that the model has computed since the beginning of the text.
        memory_bytes: the memory of the process, or that of its tensors on a GPU.
    """

    number: int
    reading: Reading
    seconds: float
    memory_bytes: int

    def as_json(self, label_names: tuple[str, ...]) -> dict[str, Any]:
        """Return the row as the endpoint `stream` sends it."""
        return {
            "segment": self.number,
            "segments": self.reading.segments,
            "text": self.reading.text,
            "probabilities": dict(zip(label_names, self.reading.outputs, strict=True)),
            "seconds": round(self.seconds, 6),
            "state_bytes": self.reading.state_bytes,
            "memory_bytes": self.memory_bytes,
            "truncated": self.reading.truncated,
        }


class Answers:
    """The answers of a finished run.

    Args:
        run: the run, its model on the device that computes.
        max_bytes: most UTF-8 bytes of a text, and of all texts of a batch together.

    Raises:
        UserError: if the run has no prediction after each segment of one text, or predicts a number.
    """

    def __init__(self, run: FinishedRun, max_bytes: int) -> None:
        check_readings(run)
        if run.source.problem.explained != "probabilities":
            raise UserError(
                f"serve shows probabilities of labels; this run has problem_type '{run.source.problem.name}'"
            )
        if max_bytes < 1:
            raise UserError(f"max_bytes must be at least 1, got {max_bytes}")
        self.run = run
        self.max_bytes = max_bytes
        self.label_names = run.source.info.label_names

    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return for each text the record of `rmaat predict --output`: label, probabilities.

        A text without a prediction has the key `error` instead.

        Raises:
            UserError: if the texts are no list of strings, too many or too long.
        """
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise UserError("predict takes a list of texts")
        if len(texts) > MOST_TEXTS:
            raise UserError(f"predict takes at most {MOST_TEXTS:,} texts at once, got {len(texts):,}")
        self._check_size(*texts)
        rows = list[dict[str, Any]]()
        for outcome in predict_many(self.run, (Example("", (text,)) for text in texts)):
            prediction = outcome.prediction
            if prediction is None:
                rows.append({"error": outcome.problem})
                continue
            rows.append({**prediction.record(self.label_names), "truncated": prediction.truncated})
        return rows

    def explain(self, text: str) -> dict[str, Any]:
        """Return what `rmaat explain --output` writes as explanation.json.

        Raises:
            UserError: if the text is no string, empty, too long, or has no prediction.
        """
        self._check_text(text)
        return explain(self.run, text).record()

    def stream(self, text: str) -> Iterator[Row]:
        """Yield a row for each segment, as soon as the model has read it.

        Raises:
            UserError: see `explain`.
        """
        self._check_text(text)
        memory = memory_of(self.run.model.device)
        seconds, started = 0.0, time.perf_counter()
        for number, reading in enumerate(read_segments(self.run, text, segments_per_call=1), 1):
            seconds += time.perf_counter() - started
            yield Row(number, reading, seconds, memory.used())
            # The caller's time does not count.
            started = time.perf_counter()

    def document(self, name: str, content: bytes) -> str:
        """Return the text of an uploaded file, which is not written anywhere.

        Raises:
            UserError: if the file holds records, is no UTF-8 text, or is too long.
        """
        if is_record_file(Path(name)):
            raise UserError(f"{quoted(name)} holds records; this page reads one text, `rmaat predict` reads records")
        try:
            return read_text(name, content, self.max_bytes)
        except UserError as error:
            raise UserError(f"{quoted(name)}: {error}") from error

    def _check_text(self, text: str) -> None:
        if not isinstance(text, str):
            raise UserError("the text must be a string")
        self._check_size(text)

    def _check_size(self, *texts: str) -> None:
        size = sum(len(text.encode(errors="surrogatepass")) for text in texts)
        if size > self.max_bytes:
            raise UserError(
                f"the text has {size:,} bytes, and this page reads at most {self.max_bytes:,}; "
                "start `rmaat serve` with a larger --max_bytes"
            )
