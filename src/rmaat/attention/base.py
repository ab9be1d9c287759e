"""What all token mixers have in common, and the way from a name to a module.

Axes: B batch, N positions (memory first), D width, H heads, m = d = D / H features of a head.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from rmaat.attention.causal import CausalPositions, Tensors
from rmaat.attention.registry import ATTENTION
from rmaat.errors import UserError
from rmaat.registry import import_object
from rmaat.settings import ModelSettings


class Mixer(nn.Module, ABC):
    """Moves information between the positions of a segment; all that a block knows of it."""

    def __init__(self, settings: ModelSettings) -> None:
        """Declare the parameters; their values come from `initialise` or a checkpoint."""
        super().__init__()

    def initialise(self) -> None:
        """Fill the tensors that are the mixer's own, not a submodule's.

        Only by `transformers.initialization`, whose functions leave alone what a checkpoint has
        filled.
        """

    def shared(self) -> Tensor | None:
        """Return what depends on parameters alone, computed once for all segments."""
        return None

    @abstractmethod
    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D), without the residual; `mask_BN` is True where there is a token.

        N is at most num_positions, counted from the first. What stands at masked positions changes
        no other position, nor does leaving them out at the end.
        """


class CausalMixer(Mixer):
    """A mixer that can also read backwards only; `causal` in the registry says so."""

    @abstractmethod
    def start(self, batch: int, like: Tensor) -> Tensors:
        """Return what `advance` carries at the beginning of a segment; dtype and device of `like`."""

    @abstractmethod
    def advance(
        self, x_BND: Tensor, positions: CausalPositions, shared: Tensor | None, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Mix a piece of a segment causally: position i reads positions up to i.

        Row i of the result is that of `forward` on the segment up to position i.

        Args:
            x_BND: the piece.
            positions: its places in the segment.
            shared: as in `forward`.
            carried: the result of the piece before, or of `start`.

        Returns:
            (B, N, D) without the residual, and the state for the next piece: tensors (B, ...) of
            constant size.
        """


class AttentionMixer(Mixer):
    """Multi-head attention without biases in queries, keys and values [A].

    Heads are concatenated and projected [C].
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.num_heads = settings.num_attention_heads
        self.head_width = settings.hidden_size // settings.num_attention_heads
        self.query_key_value = nn.Linear(settings.hidden_size, 3 * settings.hidden_size, bias=False)
        self.output = nn.Linear(settings.hidden_size, settings.hidden_size)

    @abstractmethod
    def attend(self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, mask_BN: Tensor) -> Tensor:
        """Mix (B, H, N, m) queries, keys and values to (B, H, N, d)."""

    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None) -> Tensor:
        """Project, attend, concatenate the heads, project."""
        q, k, v = split_heads(self.query_key_value(x_BND), 3, self.num_heads)
        return self.output(join_heads(self.attend(q, k, v, shared, mask_BN)))


class CausalAttentionMixer(AttentionMixer, CausalMixer):
    """Multi-head attention that can also read backwards only."""

    @abstractmethod
    def attend_causally(
        self, q: Tensor, k: Tensor, v: Tensor, shared: Tensor | None, positions: CausalPositions, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Mix the queries, keys and values of a piece, (B, H, N, m) each, to (B, H, N, d)."""

    def advance(
        self, x_BND: Tensor, positions: CausalPositions, shared: Tensor | None, carried: Tensors
    ) -> tuple[Tensor, Tensors]:
        """Project, attend causally, concatenate the heads, project."""
        q, k, v = split_heads(self.query_key_value(x_BND), 3, self.num_heads)
        mixed_BHNd, carried = self.attend_causally(q, k, v, shared, positions, carried)
        return self.output(join_heads(mixed_BHNd)), carried


def split_heads(x: Tensor, parts: int, num_heads: int) -> tuple[Tensor, ...]:
    """Split (B, N, parts D) into `parts` tensors (B, H, N, D / H)."""
    return x.unflatten(-1, (parts, num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def join_heads(x_BHNd: Tensor) -> Tensor:
    """Join (B, H, N, d) to (B, N, H d)."""
    return x_BHNd.transpose(1, 2).flatten(-2)


def build_mixer(settings: ModelSettings) -> Mixer:
    """Build the token mixer that `attention_type` names.

    Raises:
        UserError: for an unknown name; or if the module of another package's attention cannot be
            imported or is no `Mixer`.
    """
    kind = settings.attention_type
    place = ATTENTION[kind].module
    try:
        mixer = import_object(place)
    except (ImportError, AttributeError) as error:
        raise UserError(f"attention_type '{kind}' cannot be imported from '{place}': {error}") from error
    # Nothing else has `initialise`: the parameters would keep what the allocator left there.
    if not (isinstance(mixer, type) and issubclass(mixer, Mixer)):
        raise UserError(f"attention_type '{kind}': '{place}' is no subclass of rmaat.attention.base.Mixer")
    if settings.causal and not issubclass(mixer, CausalMixer):
        raise UserError(f"attention_type '{kind}': '{place}' is no subclass of rmaat.attention.base.CausalMixer")
    return mixer(settings)
