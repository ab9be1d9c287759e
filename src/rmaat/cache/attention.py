"""The attention function of models whose cache has a budget, registered with transformers.

Axes as in `base.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rmaat.cache.base import MARK
from rmaat.errors import UserError, quoted

NAME = "rmaat_budget"
"""The attention implementation in transformers, for `set_attn_implementation`."""


def attach(model: PreTrainedModel) -> None:
    """Let a causal language model compute its attention over the caches of this room.

    Afterwards the model computes with PyTorch's `scaled_dot_product_attention`, also over any other
    cache or without one. `model.set_attn_implementation("sdpa")` undoes it. Nothing else changes.

    Args:
        model: of transformers.

    Raises:
        UserError: the model is no decoder with full attention in all layers, such as Mamba, T5 or
            Mistral with a sliding window, or its attention is not exchangeable.
    """
    name, config = type(model).__name__, getattr(model, "config", None)
    if not hasattr(model, "set_attn_implementation") or config is None:
        raise UserError(f"attach needs a language model of transformers, not {quoted(name)}")
    if config.is_encoder_decoder or not model.can_generate():
        raise UserError(f"{name} is no causal language model")
    text_config = config.get_text_config(decoder=True)
    kinds = set(get_layer_types_and_kwargs(text_config)[0])
    # Some models without attention name no kinds of layers.
    if not hasattr(text_config, "num_attention_heads") or getattr(model, "_is_stateful", False):
        kinds.add("recurrent")
    if kinds != {"full_attention"}:
        others = ", ".join(sorted(kinds - {"full_attention"}))
        raise UserError(
            f"{name} has layers of another kind than full attention: {others}; "
            "a budget is for layers that keep all entries"
        )
    if not getattr(model, "_supports_sdpa", False) or not model._can_set_attn_implementation():
        raise UserError(f"the attention of {name} cannot be exchanged in transformers")
    model.set_attn_implementation(NAME)


def budget_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention over the cache's entries and the new tokens, (B, Q, H G, D), and None.

    The interface is that of transformers. Without a cache of this room it is the attention `sdpa`.

    Args:
        module: the attention layer.
        query: (B, H G, Q, D).
        key, value: (B, H, Q, D), as `BudgetLayer.update` returned them.
        attention_mask: (B, 1, Q, Q) bool of the new tokens, True = visible. None is causal.
        scaling: the factor of q . k; None is 1 / sqrt(D).
        kwargs: for `sdpa`.

    Raises:
        UserError: the mask is the user's own 4D mask, or the layer has a sliding window.
    """
    layer = getattr(key, MARK, None)
    if layer is None:
        tensors = (query, key, value, attention_mask)
        return sdpa_attention_forward(module, *tensors, scaling=scaling, **kwargs)
    if kwargs.get("sliding_window") is not None or kwargs.get("position_bias") is not None:
        raise UserError("a cache with a budget is for attention without window or position bias")
    if attention_mask is not None and (
        attention_mask.dtype != torch.bool or attention_mask.shape[2:] != (query.shape[2],) * 2
    ):
        raise UserError("a cache with a budget takes a mask (rows, tokens) of 0 and 1, no 4D mask")

    def attention(keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        tensors = (query, keys, values, mask)
        return sdpa_attention_forward(module, *tensors, scaling=scaling, **kwargs)[0]

    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output: Tensor = layer.attend(query, key, value, attention_mask, scale, attention)
    return output, None


AttentionInterface.register(NAME, budget_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
