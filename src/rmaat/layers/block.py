"""One encoder layer. Axes: B batch, N positions, D width."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from rmaat.attention.base import CausalMixer, build_mixer
from rmaat.attention.causal import CausalPositions, Tensors
from rmaat.layers.dropout import apply_dropout
from rmaat.settings import ModelSettings


class EncoderBlock(nn.Module):
    """Attention and feed-forward part, each with residual and normalisation [P, figure 2].

    Normalisation comes after the residual [P], or before attention and feed-forward part
    (norm_first) [C].
    """

    DROPOUT_SITES = 2
    """Dropout masks of one layer: after attention and after the feed-forward part."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.mixer = build_mixer(settings)
        self.mixer_norm = nn.LayerNorm(width, eps=settings.layer_norm_eps)
        self.expand = nn.Linear(width, settings.intermediate_size)
        self.contract = nn.Linear(settings.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=settings.layer_norm_eps)
        self.activation = ACT2FN[settings.hidden_act]
        self.norm_first = settings.norm_first
        self.drop = settings.hidden_dropout_prob

    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None, dropout_masks: Tensor | None) -> Tensor:
        """Return the layer's output, (B, N, D).

        Args:
            x_BND: the layer's input.
            mask_BN: bool, True at the positions in use.
            shared: the result of the mixer's `shared()`.
            dropout_masks: (DROPOUT_SITES, B, N, D) bool, or None for no dropout.
        """
        mixed = self.mixer(self._mixer_input(x_BND), mask_BN, shared)
        return self._after_mixer(x_BND, mixed, dropout_masks)

    def advance(
        self,
        x_BND: Tensor,
        positions: CausalPositions,
        shared: Tensor | None,
        dropout_masks: Tensor | None,
        carried: Tensors,
    ) -> tuple[Tensor, Tensors]:
        """Return the layer's output for a piece of a causal segment, and the state for the next piece."""
        assert isinstance(self.mixer, CausalMixer)
        mixed, carried = self.mixer.advance(self._mixer_input(x_BND), positions, shared, carried)
        return self._after_mixer(x_BND, mixed, dropout_masks), carried

    def _mixer_input(self, x_BND: Tensor) -> Tensor:
        return self.mixer_norm(x_BND) if self.norm_first else x_BND

    def _after_mixer(self, x_BND: Tensor, mixed_BND: Tensor, dropout_masks: Tensor | None) -> Tensor:
        mixer_mask, feed_forward_mask = (None, None) if dropout_masks is None else dropout_masks.unbind(0)
        x_BND = x_BND + apply_dropout(mixed_BND, mixer_mask, self.drop)
        x_BND = x_BND if self.norm_first else self.mixer_norm(x_BND)
        feed_forward = self._feed_forward(self.feed_forward_norm(x_BND) if self.norm_first else x_BND)
        x_BND = x_BND + apply_dropout(feed_forward, feed_forward_mask, self.drop)
        return x_BND if self.norm_first else self.feed_forward_norm(x_BND)

    def _feed_forward(self, x_BND: Tensor) -> Tensor:
        return self.contract(self.activation(self.expand(x_BND)))
