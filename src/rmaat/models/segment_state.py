"""What goes into the segment step, and what comes out of it.

Axes: B batch, S tokens or patches of a segment, P values of a patch, M memory tokens, D width, L
layers, T segments, K key features of the associative memory, E columns of it, F results for each
token.
"""

from typing import NamedTuple

from torch import Tensor


class SegmentInputs(NamedTuple):
    """The inputs of all segments, each with a leading axis T; the inputs of one segment lack it.

    Attributes:
        tokens: (T, B, S) integer token ids, (T, B, S, P) floating-point values, or (T, B, S, D)
            embedded tokens. Positions at or after the row's length are not read.
        length: (T, B) int64, the number of the row's tokens or patches in the segment, 0 .. S. A
            row of length 0 keeps its state.
        factor: (T, B, 1) retention factors for the memory after the segment, or (T, B, M) with one
            factor per memory token.
        masked: (T, B, S) bool, True at positions to predict; (T, B, 0) if there are none.
        labels: (T, B, S) int64, the id that follows each token, or IGNORED; (T, B, 0) if none is
            asked for.
    """

    tokens: Tensor
    length: Tensor
    factor: Tensor
    masked: Tensor
    labels: Tensor


class SegmentState(NamedTuple):
    """The state that passes from one segment to the next.

    Attributes:
        memory: (B, M, D), after the retention factor.
        readout: (B, D + 1), the sum of the positions that the head reads and, last, their number.
        associations: (B, L, K, E), the associative memory of each layer; L is 0 without one.
        loss_sums: (B, 2), the sum of the losses at masked positions, or at tokens with a label, and
            their number; (B, 0) if nothing is predicted.
        token_outputs: (B, S, F), results for each position of the last segment: those of
            `TokenOutputs` that are asked for, and the logits of a token classifier. Padding has
            zeros. It is (B, 0, 0) without any. The next segment does not read it.
    """

    memory: Tensor
    readout: Tensor
    associations: Tensor
    loss_sums: Tensor
    token_outputs: Tensor


class TokenOutputs(NamedTuple):
    """The results for each token that a call asks for.

    Attributes:
        hidden_states: the embedded tokens, then the output of each layer, the last one normalised.
        last_hidden: the last of these alone.
        losses: the cross-entropy of each label.
        correct: 1 if the label has the largest logit, else 0; the first of equal logits counts.
    """

    hidden_states: bool = False
    last_hidden: bool = False
    losses: bool = False
    correct: bool = False


NO_TOKEN_OUTPUTS = TokenOutputs()
