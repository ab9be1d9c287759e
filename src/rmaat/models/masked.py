"""The prediction of masked tokens or values: the head, its loss, and the choice of positions.

Axes: B batch, S positions of a segment, D width, V ids of the vocabulary, P values of a patch, I
masked positions of all rows.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import initialization as init

from rmaat.attention.precision import at_least_float32
from rmaat.models.configuration import RmaatConfig


class MaskedHead(nn.Module):
    """A head that predicts the tokens or values at masked positions (arXiv 2310.02980).

    The embedding of a masked position is replaced by `vector`, (D,), with the position added as for
    others. A linear map of the last layer's output predicts the token's id, or the values.
    """

    def __init__(self, config: RmaatConfig) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.empty(config.hidden_size))
        self.values = config.input_type == "values"
        self.output = nn.Linear(config.hidden_size, config.patch_size if self.values else config.vocab_size)

    def initialise(self) -> None:
        """Draw the vector as embeddings are drawn, from a standard normal distribution."""
        init.normal_(self.vector)

    def hide(self, embedded_BSD: Tensor, positions_SD: Tensor, masked_BS: Tensor) -> Tensor:
        """Return the embedded positions with the masked ones replaced, (B, S, D)."""
        return torch.where(masked_BS[..., None], self.vector + positions_SD, embedded_BSD)

    def forward(self, hidden_BSD: Tensor, inputs: Tensor, masked_BS: Tensor) -> Tensor:
        """Return the sum of each row's losses and their number, (B, 2), in at least float32.

        The loss of a token is its cross-entropy, that of a patch the mean absolute error of its
        values [as there].

        Args:
            hidden_BSD: the last layer's output, normalised.
            inputs: (B, S) ids, or (B, S, P) values, before masking.
            masked_BS: bool.
        """
        # Losses are summed for each row, because rows of a batch end in different segments.
        rows = torch.arange(len(hidden_BSD), device=hidden_BSD.device)[:, None].expand_as(masked_BS)
        if torch.compiler.is_compiling():
            # The number of masked positions differs from step to step; a compiled graph computes
            # all positions instead.
            hidden_ID, inputs_I, rows_I = hidden_BSD.flatten(0, 1), inputs.flatten(0, 1), rows.flatten()
            weight_I = masked_BS.flatten()
        else:
            hidden_ID, inputs_I, rows_I = hidden_BSD[masked_BS], inputs[masked_BS], rows[masked_BS]
            weight_I = torch.ones_like(rows_I, dtype=torch.bool)
        predicted = at_least_float32(self.output(hidden_ID))
        if self.values:
            loss_I = (predicted - inputs_I).abs().mean(-1)
        else:
            loss_I = cross_entropy(predicted, inputs_I.long(), reduction="none")
        pairs_I2 = torch.stack([loss_I, torch.ones_like(loss_I)], -1).masked_fill(~weight_I[:, None], 0)
        return pairs_I2.new_zeros(len(hidden_BSD), 2).index_add(0, rows_I, pairs_I2)


def draw_masked(attention_mask: Tensor, share: float, patch_size: int = 1) -> Tensor:
    """Draw the masked positions by torch's random state, (B, N / patch_size) bool.

    Args:
        attention_mask: (B, N) bool.
        share: the probability that a position is masked.
        patch_size: values of a position.
    """
    present = attention_mask.bool()[:, ::patch_size]
    # Drawn on the CPU: a GPU has a random state of its own, and would draw other positions.
    return (torch.rand(present.shape) < share).to(present.device) & present


def mean_loss(*sums_B2: Tensor | None) -> Tensor | None:
    """Return the mean loss over the masked positions of one or several inputs of a batch, ().

    It is 0 without any masked position, and None if no input has a mask.
    """
    present = [sums.sum(0) for sums in sums_B2 if sums is not None]
    if not present:
        return None
    loss, count = torch.stack(present).sum(0)
    return loss / count.clamp_min(1)
