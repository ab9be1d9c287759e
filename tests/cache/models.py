"""Tiny language models, and a drive of one layer's cache without a model."""

from types import SimpleNamespace

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rmaat.cache import attach
from rmaat.cache.attention import budget_attention

SIZES = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def llama(dtype=torch.float64, attached=True, **settings):
    return _model(LlamaForCausalLM, LlamaConfig(**{**SIZES, **settings}), dtype, attached)


def qwen(dtype=torch.float64, attached=True, **settings):
    return _model(Qwen3ForCausalLM, Qwen3Config(**{**SIZES, **settings}), dtype, attached)


def _model(kind, config, dtype, attached):
    torch.manual_seed(0)
    model = kind(config).to(dtype).eval()
    if attached:
        attach(model)
    return model


def prompts(rows, tokens, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, SIZES["vocab_size"], (rows, tokens), generator=generator)


def draw(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def attended(cache, q, k, v, chunks, layer=0):
    """Return the outputs (B, H G, N, D) of one layer for q (B, H G, N, D) and k, v (B, H, N, D)."""
    module = SimpleNamespace(num_key_value_groups=q.shape[1] // k.shape[1], is_causal=True)
    outputs, start = [], 0
    for chunk in chunks:
        part = slice(start, start + chunk)
        new_k, new_v = cache.update(k[:, :, part], v[:, :, part], layer)
        output, _ = budget_attention(module, q[:, :, part], new_k, new_v, None)
        outputs.append(output.transpose(1, 2))
        start += chunk
    return torch.cat(outputs, 2)


def held_bytes(cache):
    """Return the bytes of the tensors of a cache, with the storage that views keep alive."""
    tensors = [x for layer in cache.layers for x in vars(layer).values() if torch.is_tensor(x)]
    storages = [x.untyped_storage() for x in tensors if x.dtype != torch.int64]
    # The numbers of entries, of 8 bytes a head at most, do not count, nor do bools a row.
    return sum({x.data_ptr(): x.nbytes() for x in storages if x.nbytes() > 64}.values())
