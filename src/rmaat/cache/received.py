"""The attention that entries receive from queries, for rules that score by it.

Axes: B batch rows, H key-value heads, G queries per key-value head, Q queries, N entries, D width
of a head.
"""

import torch
from torch import Tensor

from rmaat.attention.precision import at_least_float32, no_autocast

QUERY_BLOCK = 128
"""Queries whose attention probabilities exist at the same time."""


def tokens_after(query: Tensor, tokens: Tensor | None) -> Tensor:
    """Return how many tokens follow each query, (1 or B, Q) int64.

    Args:
        query: (B, H G, Q, D).
        tokens: (B, Q), False = padding; None if there is none.
    """
    if tokens is None:
        return torch.arange(query.shape[2] - 1, -1, -1, device=query.device)[None]
    return tokens.flip(-1).cumsum(-1).flip(-1) - tokens.long()


def attention_received(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    decays: Tensor,
    scale: float,
) -> Tensor:
    """Return the attention probabilities that entries receive, summed over queries, (B, H, N).

    Args:
        query: (B, H G, Q, D).
        key: (B, H, N, D).
        mask: (B, 1 or H G, Q, N), bool or added to the logits; None is causal.
        decays: (1 or B, Q), the weight of each query in the sum.
        scale: the factor of q . k.
    """
    with no_autocast(query):
        return _received(at_least_float32(query), at_least_float32(key), mask, decays, scale)


def _received(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    decays: Tensor,
    scale: float,
) -> Tensor:
    heads, length = key.shape[1:3]
    tokens = query.shape[2]
    q_BHGQD = query.unflatten(1, (heads, -1))
    keys_BH1DN = key.mT[:, :, None]
    if mask is None:
        ones = torch.ones(tokens, length, dtype=torch.bool, device=key.device)
        mask = ones.tril(length - tokens)[None, None]
    # A mask for all heads has one group of one head.
    mask_BHGQN = mask.unflatten(1, (min(heads, mask.shape[1]), -1))
    received = torch.zeros_like(key[..., 0])
    for start in range(0, tokens, QUERY_BLOCK):
        part = slice(start, start + QUERY_BLOCK)
        logits = q_BHGQD[..., part, :] @ keys_BH1DN * scale
        if mask.dtype == torch.bool:
            # Queries of padding see nothing: the least number gives them finite probabilities.
            logits = logits.masked_fill(~mask_BHGQN[..., part, :], torch.finfo(logits.dtype).min)
        else:
            logits = logits + mask_BHGQN[..., part, :]
        p = logits.softmax(-1)
        received += torch.einsum("bhgqn,bq->bhn", p, decays[:, part].expand(len(p), -1))
    return received
