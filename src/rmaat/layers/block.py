"""One encoder layer. Axes: B batch, N positions, D width."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from rmaat.attention.base import build_mixer
from rmaat.errors import UserError, did_you_mean
from rmaat.layers.dropout import apply_dropout
from rmaat.settings import ModelSettings


class EncoderBlock(nn.Module):
    """Attention with its residual, normalise, feed-forward, add and normalise [P, figure 2]; pre-norm as an option [C]."""

    DROPOUT_SITES = 2

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.hidden_size
        self.mixer = build_mixer(settings)
        self.mixer_norm = nn.LayerNorm(width, eps=settings.layer_norm_eps)
        self.expand = nn.Linear(width, settings.intermediate_size)
        self.contract = nn.Linear(settings.intermediate_size, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps=settings.layer_norm_eps)
        if settings.hidden_act not in ACT2FN:
            raise UserError(f"unknown hidden_act '{settings.hidden_act}'; {did_you_mean(settings.hidden_act, ACT2FN)}")
        self.activation = ACT2FN[settings.hidden_act]
        self.norm_first = settings.norm_first
        self.drop = settings.hidden_dropout_prob

    def forward(self, x_BND: Tensor, mask_BN: Tensor, shared: Tensor | None, keep: Tensor | None) -> Tensor:
        """(B, N, D) -> (B, N, D); `keep` are the dropout masks (DROPOUT_SITES, B, N, D), or None."""
        keep_mixer, keep_feed_forward = (None, None) if keep is None else keep.unbind(0)
        if self.norm_first:
            mixed = self.mixer(self.mixer_norm(x_BND), mask_BN, shared)
            x_BND = x_BND + apply_dropout(mixed, keep_mixer, self.drop)
            fed = self._feed_forward(self.feed_forward_norm(x_BND))
            return x_BND + apply_dropout(fed, keep_feed_forward, self.drop)
        mixed = self.mixer(x_BND, mask_BN, shared)
        x_BND = self.mixer_norm(x_BND + apply_dropout(mixed, keep_mixer, self.drop))
        fed = self._feed_forward(x_BND)
        return self.feed_forward_norm(x_BND + apply_dropout(fed, keep_feed_forward, self.drop))

    def _feed_forward(self, x_BND: Tensor) -> Tensor:
        return self.contract(self.activation(self.expand(x_BND)))
