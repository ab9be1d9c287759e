"""Luna: attention packs tokens into a few positions and reads them from there (arXiv 2106.01540).

The fast form of both attentions is `softmax_attention`.

Axes: B batch, N = M + S positions, M packed ones first, D width, H heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmaat.attention.base import Mixer, join_heads, split_heads
from rmaat.attention.softmax import reference_softmax_attention, softmax_attention
from rmaat.settings import ModelSettings


class Projections(NamedTuple):
    """The weights of one attention: query (D, D), key_value (2 D, D), output (D, D), bias (D,)."""

    query: Tensor
    key_value: Tensor
    output: Tensor
    bias: Tensor


def reference_luna_attention(
    packed_BMD: Tensor,
    tokens_BSD: Tensor,
    mask_BS: Tensor,
    pack: Projections,
    unpack: Projections,
    heads: int,
) -> tuple[Tensor, Tensor]:
    """Return P' = Attn(P, X) and X' = Attn(X, P') for packed positions P and tokens X.

    The mask is (B, S) bool, True where there is a token; a row without any gives NaN. The results
    have the shapes of P and X.
    """

    def attend(x: Tensor, context: Tensor, weights: Projections, mask: Tensor | None) -> Tensor:
        (q,) = split_heads(x @ weights.query.mT, 1, heads)
        k, v = split_heads(context @ weights.key_value.mT, 2, heads)
        read_BND = join_heads(reference_softmax_attention(q, k, v, mask))
        return read_BND @ weights.output.mT + weights.bias

    packed_BMD = attend(packed_BMD, tokens_BSD, pack, mask_BS)
    return packed_BMD, attend(tokens_BSD, packed_BMD, unpack, None)


class LunaMixer(Mixer):
    """Linear unified nested attention (arXiv 2106.01540): P' = Attn(P, X), X' = Attn(X, P').

    The packed context P is the memory, at the front of the positions. [C]: the block gives P the
    same residual, normalisation and feed-forward as the tokens, where the original leaves the
    feed-forward out for P.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        width = settings.hidden_size
        self.num_heads = settings.num_attention_heads
        self.num_packed = settings.num_memory_tokens
        self.pack_query = nn.Linear(width, width, bias=False)
        self.pack_key_value = nn.Linear(width, 2 * width, bias=False)
        self.pack_output = nn.Linear(width, width)
        self.unpack_query = nn.Linear(width, width, bias=False)
        self.unpack_key_value = nn.Linear(width, 2 * width, bias=False)
        self.unpack_output = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None) -> Tensor:
        """Pack the tokens into the M positions of P, then read their new values from there."""
        packed_BMD, tokens_BSD = x_BND.split([self.num_packed, x_BND.shape[1] - self.num_packed], 1)
        (q,) = split_heads(self.pack_query(packed_BMD), 1, self.num_heads)
        k, v = split_heads(self.pack_key_value(tokens_BSD), 2, self.num_heads)
        packed_BMD = self.pack_output(join_heads(softmax_attention(q, k, v, mask_BN[:, self.num_packed :])))
        (q,) = split_heads(self.unpack_query(tokens_BSD), 1, self.num_heads)
        k, v = split_heads(self.unpack_key_value(packed_BMD), 2, self.num_heads)
        tokens_BSD = self.unpack_output(join_heads(softmax_attention(q, k, v)))
        return torch.cat([packed_BMD, tokens_BSD], 1)
