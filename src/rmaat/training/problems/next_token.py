"""Answers at many positions: the id that follows some tokens of an example.

Axes: E examples, B examples of a batch, N tokens, T segments of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from rmaat.problems import IGNORED, NEXT_TOKEN
from rmaat.training.problems.base import Labels, Outputs, Problem

if TYPE_CHECKING:
    from rich.table import Table

    from rmaat.models import RmaatConfig

NOT_OF_TOKENS = "a run with answers at many positions makes no predictions for whole examples"
"""The message of an impossible call; `rmaat.training.finished_run.open_classifier` refuses such runs."""


def share(right: float, asked: float) -> float | None:
    """Return right / asked, or None if nothing was asked."""
    return float(right / asked) if asked else None


class NextToken(Problem):
    """The ids that follow some tokens, of a causal model.

    An evaluation keeps three numbers for each example and segment, and no logits. Its outputs are (E,
    2 T) float32: the number of right answers to the questions of each segment, then the sum of their
    cross-entropies. Its labels are (E, T) int64, the number of questions. A question belongs to the
    segment of the token that predicts the answer.
    """

    name = NEXT_TOKEN
    titles = {"accuracy": "accuracy"}  # noqa: RUF012
    shares = ("accuracy",)
    ranked_with_loss = ("accuracy",)
    guesses = {"majority_accuracy": "always commonest answer"}  # noqa: RUF012
    rival_name = ""
    details = ("segments",)
    evaluation_arguments = {"output_token_losses": True, "output_token_correct": True}  # noqa: RUF012

    def collected(self, outputs: Any, labels: Tensor, config: RmaatConfig) -> tuple[Tensor, Tensor]:
        """Return the sums of a batch by segment, (B, 2 T), and the numbers of questions, (B, T).

        Args:
            outputs: token_losses (B, N) and token_correct (B, N) of `RmaatForCausalLM`.
            labels: (B, N).
            config: of the model.
        """
        losses_BN, correct_BN = outputs
        asked_BN = labels != IGNORED
        segments, size = config.num_segments, config.tokens_per_segment

        def by_segment(x_BN: Tensor) -> Tensor:
            # Label n + 1 belongs to token n. Nothing predicts the first label.
            of_token_BN = x_BN.masked_fill(~asked_BN, 0)[:, 1 : segments * size + 1]
            padded_BN = pad(of_token_BN, (0, segments * size - of_token_BN.shape[1]))
            return padded_BN.unflatten(1, (segments, size)).sum(2)

        sums = [by_segment(correct_BN.float()), by_segment(losses_BN.float())]
        return torch.cat(sums, 1), by_segment(asked_BN.long())

    def metrics(self, outputs_EC: Outputs, labels_E: Labels) -> dict[str, float]:
        """Return the share of right answers over all questions of all examples."""
        right_ET, _ = np.split(outputs_EC, 2, axis=1)
        return {"accuracy": float(right_ET.sum(dtype=np.float64) / max(1, labels_E.sum()))}

    def loss(self, outputs_EC: Outputs, labels_E: Labels) -> float:
        """Return the mean cross-entropy over all questions of all examples."""
        _, losses_ET = np.split(outputs_EC, 2, axis=1)
        return float(losses_ET.sum(dtype=np.float64) / max(1, labels_E.sum()))

    def correct(self, outputs_EC: Outputs, labels_E: Labels) -> NDArray[np.float64]:
        """Return the share of each example's answers that are right, (E,)."""
        right_ET, _ = np.split(outputs_EC, 2, axis=1)
        shares_E: NDArray[np.float64] = right_ET.sum(1, dtype=np.float64) / np.maximum(labels_E.sum(1), 1)
        return shares_E

    def guess(self, labels_E: Labels, config: RmaatConfig) -> dict[str, float]:
        """Return the accuracy of always guessing the commonest answer of the part.

        Args:
            labels_E: the labels of all tokens of all examples, see `rmaat.tasks.reader.TokenReader`.
            config: not used.
        """
        counts = np.bincount(labels_E[labels_E != IGNORED], minlength=1)
        return {"majority_accuracy": float(counts.max() / max(1, counts.sum()))}

    def summary(self, outputs_EC: Outputs, labels_E: Labels, names: Sequence[str]) -> dict[str, Any]:
        """Return all measurements but the loss.

        Returns:
            `accuracy`; `answers`, the number of questions; `segments`, the accuracy and the answers of
            each segment of the model, in order. The accuracy is None where nothing is asked.
        """
        right_T = np.split(outputs_EC, 2, axis=1)[0].sum(0, dtype=np.float64)
        asked_T = labels_E.sum(0)
        segments = zip(right_T.tolist(), asked_T.tolist(), strict=True)
        return {
            **self.metrics(outputs_EC, labels_E),
            "answers": int(asked_T.sum()),
            "segments": [{"accuracy": share(right, asked), "answers": asked} for right, asked in segments],
        }

    def table(self, metrics: Mapping[str, Any]) -> Table | None:
        """Return a table with a row for each segment in which something is asked; None for one segment."""
        from rich.table import Table

        segments = [(index, of) for index, of in enumerate(metrics["test_segments"], 1) if of["answers"]]
        if len(segments) < 2:
            return None
        table = Table("segment", box=None, pad_edge=False)
        for name in ("accuracy", "answers"):
            table.add_column(name, justify="right")
        for index, of in segments:
            table.add_row(str(index), self.value("accuracy", of["accuracy"]), f"{of['answers']:,}")
        return table

    def draw(self, metrics: Mapping[str, Any], folder: Path) -> list[Path]:
        """Draw nothing."""
        return []

    def outputs(self, logits: NDArray[np.float64]) -> NoReturn:
        """Refuse."""
        raise AssertionError(NOT_OF_TOKENS)

    def prediction(self, logits_C: NDArray[np.float64], names: Sequence[str], truncated: bool) -> NoReturn:
        """Refuse."""
        raise AssertionError(NOT_OF_TOKENS)

    def columns(self, names: Sequence[str]) -> NoReturn:
        """Refuse."""
        raise AssertionError(NOT_OF_TOKENS)

    def uninformed(self, config: RmaatConfig) -> NoReturn:
        """Refuse."""
        raise AssertionError(NOT_OF_TOKENS)

    def rival(self) -> NoReturn:
        """Refuse."""
        raise AssertionError(NOT_OF_TOKENS)

    def rival_score(self, rival: Any, features: Any, labels_E: Labels) -> NoReturn:
        """Refuse."""
        raise AssertionError(NOT_OF_TOKENS)
