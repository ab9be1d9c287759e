"""Predictions of a finished run for texts of any length, in batches of similar lengths.

Axes: E examples, N tokens, T segments, C classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmaat.errors import UserError
from rmaat.models.classification import RmaatClassifierOutput
from rmaat.tasks.base import TokenIds
from rmaat.tasks.inputs import Example
from rmaat.training.finished_run import FinishedRun
from rmaat.training.problems import Prediction

WINDOW_EXAMPLES = 512
"""Most examples that are in memory at a time, and sorted by length."""

WINDOW_TOKENS = 2**22
"""Tokens in memory after which no more examples are read."""


@dataclass(frozen=True)
class Reading:
    """A segment of a text, and the outputs for the text up to its end.

    Attributes:
        text: the segment's text.
        outputs: probabilities of all labels, or the number, by what the model has read up to here.
            For a text that ends here they are the same if retention does not depend on the number of
            segments.
        segments: the number of segments of the text.
        state_bytes: the size of what the model carries into the next segment: memory tokens, sums
            behind the answer, associative memory.
        truncated: True if the end of the text is not read.
    """

    text: str
    outputs: tuple[float, ...]
    segments: int
    state_bytes: int
    truncated: bool


@dataclass(frozen=True)
class Outcome:
    """The prediction for an example, or the reason why it has none.

    Attributes:
        name: the example's name.
        prediction: the prediction; None if there is a problem.
        problem: the reason why there is no prediction.
        is_row: True for a row of a file of records.
    """

    name: str
    prediction: Prediction | None = None
    problem: str | None = None
    is_row: bool = False


def predict(run: FinishedRun, texts: Sequence[str], *, truncate: bool = False) -> Prediction:
    """Return the prediction for one example; see `predict_many`.

    It is a `ClassPrediction`, a `LabelSetPrediction` or a `NumberPrediction` of
    `rmaat.training.problems`, by the run's problem type.

    Args:
        run: the finished run.
        texts: one text, or two if the run's task has pairs.
        truncate: truncate texts as training did.

    Raises:
        UserError: for a text that is empty or that the task cannot encode, for a wrong number of
            texts, and for logits that are not finite.
    """
    (outcome,) = predict_many(run, [Example("", tuple(texts))], truncate=truncate)
    if outcome.prediction is None:
        raise UserError(outcome.problem)
    return outcome.prediction


def predict_many(
    run: FinishedRun,
    examples: Iterable[Example],
    *,
    truncate: bool = False,
    batch_size: int | None = None,
) -> Iterator[Outcome]:
    """Yield the outcome of each example, in order, computed on the model's device.

    Examples are drawn, sorted by length and predicted a few hundred at a time, so memory does not
    grow with their number. A text is read whole, in any number of segments, and memory does not
    grow with its length beyond the text itself. Models for which `RunData.reads_any_length` is False read
    it truncated as in training. The examples of a batch change each other's probabilities by
    rounding only.

    Args:
        run: the finished run.
        examples: the examples; `rmaat.tasks.inputs.read_inputs` makes them from files.
        truncate: truncate texts as training did, which gives the results of `evaluate`.
        batch_size: most examples of a batch; None means the run's per_device_eval_batch_size. A
            batch never has more than `batch_size` * max_seq_len tokens, except for a single
            example of two towers.
    """
    size = run.config.per_device_eval_batch_size if batch_size is None else batch_size
    limit = run.source.sequence_limit if truncate or not run.source.reads_any_length else None
    window: list[_Encoded | Outcome] = []
    tokens = 0
    for example in examples:
        window.append(_encode(run, example, limit))
        tokens += getattr(window[-1], "length", 0)
        if len(window) >= WINDOW_EXAMPLES or tokens >= WINDOW_TOKENS:
            yield from _outcomes(run, window, size)
            window, tokens = [], 0
    yield from _outcomes(run, window, size)


def check_readings(run: FinishedRun) -> None:
    """Raise `UserError` if the run has no prediction after each segment of one text."""
    info = run.source.info
    if len(info.columns) > 1 or info.kind == "image":
        raise UserError(
            f"a prediction after each segment needs a task with one text; {run.config.dataset} has another kind of example"
        )
    if run.model.config.pooled_norm:
        raise UserError("a model with pooled_norm has no prediction before the end of a text; train one without")


def read_segments(run: FinishedRun, text: str, segments_per_call: int | None = None) -> Iterator[Reading]:
    """Yield the prediction for a text after each of its segments, computed on the model's device.

    The model reads what `predict` reads of the text. Beyond the text itself, memory does not grow
    with its length.

    Args:
        run: the finished run.
        text: the text.
        segments_per_call: segments that the model reads in one call, before they are yielded; None
            means as many as `predict` has in a batch.

    Raises:
        UserError: see `check_readings`; if the text is empty or cannot be encoded, or its logits are
            not finite.
    """
    check_readings(run)
    encoded = _encode(run, Example("", (text,)), None if run.source.reads_any_length else run.source.sequence_limit)
    if isinstance(encoded, Outcome):
        raise UserError(encoded.problem)
    size = run.model.config.tokens_per_segment
    if segments_per_call is None:
        segments_per_call = max(1, run.config.per_device_eval_batch_size * run.model.config.max_seq_len // size)
    (ids_N,) = encoded.columns.values()
    segments = -(-len(ids_N) // size)
    ids_1N = run.source.collator()([encoded.columns])["input_ids"][:, : len(ids_N)]
    index = 0
    for out in _outputs_in_parts(run, ids_1N, segments_per_call, output_segment_logits=True):
        assert out.segment_logits is not None
        logits_TC = out.segment_logits[0].double().cpu()
        if not logits_TC.isfinite().all():
            raise UserError(NOT_FINITE)
        state_bytes = sum(x.nbytes for x in _state(out).values() if x is not None)
        for row in run.source.problem.outputs(logits_TC.numpy()).tolist():
            words = run.source.task.decode(ids_N[index * size : (index + 1) * size])
            yield Reading(words, tuple(row), segments, state_bytes, encoded.truncated)
            index += 1


@dataclass(frozen=True)
class _Encoded:
    """The token ids of an example, by column, and the length of the model's input."""

    name: str
    is_row: bool
    columns: dict[str, TokenIds]
    length: int
    truncated: bool


def _encode(run: FinishedRun, example: Example, limit: int | None) -> _Encoded | Outcome:
    """Return the token ids of an example, or its outcome if there are none."""
    names = run.source.info.columns
    problem = example.problem
    if problem is None and len(example.texts) != len(names):
        problem = f"an example of {run.config.dataset} has {len(names)} text(s), not {len(example.texts)}"
    if problem is not None:
        return Outcome(example.name, problem=problem, is_row=example.is_row)
    try:
        whole = [run.source.task.encode(text) for text in example.texts]
    except UserError as error:
        return Outcome(example.name, problem=str(error), is_row=example.is_row)
    truncated = limit is not None and any(len(ids) > limit for ids in whole)
    # A view would keep the whole text in memory.
    sequences = [ids[:limit].copy() for ids in whole] if truncated else whole
    lengths = [np.array([len(ids)]) for ids in sequences]
    length = int(run.source.input_lengths(lengths)[0])
    return _Encoded(example.name, example.is_row, dict(zip(names, sequences, strict=True)), length, truncated)


def _outcomes(run: FinishedRun, window: Sequence[_Encoded | Outcome], batch_size: int) -> Iterator[Outcome]:
    """Yield the outcomes of a window of examples, in its order."""
    outcomes = dict[int, Outcome]()
    places = [place for place, item in enumerate(window) if isinstance(item, _Encoded)]
    encoded = [item for item in window if isinstance(item, _Encoded)]
    lengths = np.array([item.length for item in encoded], np.int64)
    most_tokens = batch_size * run.model.config.max_seq_len
    for rows in length_batches(lengths, batch_size, most_tokens):
        logits = _logits(run, [encoded[row] for row in rows], most_tokens)
        for row, logits_C in zip(rows, logits, strict=True):
            outcomes[places[row]] = _outcome(run, encoded[row], logits_C)
    for place, item in enumerate(window):
        yield item if isinstance(item, Outcome) else outcomes[place]


def length_batches(lengths: NDArray[np.int64], most_rows: int, most_tokens: int) -> Iterator[list[int]]:
    """Yield batches of indices, by falling length, so that a batch holds similar lengths.

    A batch has at most `most_tokens` tokens with its padding, or a single example.

    Args:
        lengths: (E,) lengths of the examples, at least 1.
        most_rows: most examples of a batch.
        most_tokens: most tokens of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, min(most_rows, most_tokens // int(lengths[order[start]])))
        yield order[start : start + rows].tolist()
        start += rows


@torch.no_grad()
def _logits(run: FinishedRun, examples: Sequence[_Encoded], most_tokens: int) -> Tensor:
    """Return the logits (E, C) of a batch, on the CPU."""
    model = run.model
    batch = run.source.collator()([example.columns for example in examples])
    length = examples[0].length
    if len(examples) == 1 and length > most_tokens and not model.config.two_towers:
        return _logits_in_parts(run, batch["input_ids"][:, :length], most_tokens)
    return model(**{name: x.to(model.device) for name, x in batch.items()}).logits.cpu()


def _logits_in_parts(run: FinishedRun, ids_1N: Tensor, most_tokens: int) -> Tensor:
    """Return the logits (1, C) of one long sequence, read a few segments at a time.

    One call would need some bytes of memory for each token of the sequence on the model's device.
    """
    segments_per_call = max(1, most_tokens // run.model.config.tokens_per_segment)
    for out in _outputs_in_parts(run, ids_1N, segments_per_call):
        logits = out.logits
    assert logits is not None
    return logits.cpu()


def _outputs_in_parts(
    run: FinishedRun, ids_1N: Tensor, segments_per_call: int, *, output_segment_logits: bool = False
) -> Iterator[RmaatClassifierOutput]:
    """Yield the model's outputs for one sequence of ids (1, N), read a few segments at a time."""
    model, segment = run.model, run.model.config.tokens_per_segment
    total = -(-ids_1N.shape[1] // segment)
    state: dict[str, Tensor | None] = {}
    for first in range(0, total, segments_per_call):
        part = ids_1N[:, first * segment : (first + segments_per_call) * segment]
        # Not around the loop: the caller of a generator would have no gradients either.
        with torch.no_grad():
            out = model(
                input_ids=part.to(model.device),
                segment_offset=first,
                total_segments=total,
                output_segment_logits=output_segment_logits,
                **state,
            )
        state = _state(out)
        yield out


def _state(out: RmaatClassifierOutput) -> dict[str, Tensor | None]:
    """Return what the next call of the model takes to continue a sequence."""
    return {"memory": out.memory, "readout": out.readout, "associations": out.associations}


NOT_FINITE = "the model's logits for this text are not finite, so it has no prediction; its training diverged"


def _outcome(run: FinishedRun, encoded: _Encoded, logits_C: Tensor) -> Outcome:
    if not logits_C.isfinite().all():
        return Outcome(encoded.name, problem=NOT_FINITE, is_row=encoded.is_row)
    source = run.source
    prediction = source.problem.prediction(logits_C.double().numpy(), source.info.label_names, encoded.truncated)
    return Outcome(encoded.name, prediction, is_row=encoded.is_row)
