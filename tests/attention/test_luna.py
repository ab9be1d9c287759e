"""Luna's attention against its reference and against PyTorch's own attention module."""

import torch
from torch import nn
from torch.func import functional_call

from rmaat.attention.luna import Projections, reference_luna_attention


def test_it_is_its_reference(make_mixer, positions, mask, assert_same):
    """With gradients of the input and of every weight."""
    mixer = make_mixer("luna", num_memory_tokens=3, max_seq_len=10)
    names, weights = zip(*mixer.named_parameters(), strict=True)

    def fast(x, *weights):
        return functional_call(mixer, dict(zip(names, weights, strict=True)), (x, mask, None))

    def reference(x, *weights):
        named = dict(zip(names, weights, strict=True))
        parts = "query.weight", "key_value.weight", "output.weight", "output.bias"
        pack, unpack = (Projections(*(named[f"{way}_{part}"] for part in parts)) for way in ("pack", "unpack"))
        return torch.cat(reference_luna_attention(x[:, :3], x[:, 3:], mask[:, 3:], pack, unpack, 2), 1)

    weights = tuple(torch.randn_like(x) for x in weights)
    assert_same(fast, reference, (positions, *weights))


def multi_head(query, key_value, output):
    """PyTorch's attention module with the weights of three linear maps."""
    oracle = nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([query.weight, key_value.weight]))
        oracle.in_proj_bias.zero_()
        oracle.out_proj.weight.copy_(output.weight)
        oracle.out_proj.bias.copy_(output.bias)
    return oracle


def test_it_is_pytorchs_attention_twice(make_mixer, positions, mask):
    mixer = make_mixer("luna", num_memory_tokens=3, max_seq_len=10)
    pack = multi_head(mixer.pack_query, mixer.pack_key_value, mixer.pack_output)
    unpack = multi_head(mixer.unpack_query, mixer.unpack_key_value, mixer.unpack_output)
    packed, tokens = positions[:, :3], positions[:, 3:]
    packed = pack(packed, tokens, tokens, key_padding_mask=~mask[:, 3:], need_weights=False)[0]
    tokens = unpack(tokens, packed, packed, need_weights=False)[0]
    torch.testing.assert_close(mixer(positions, mask, None), torch.cat([packed, tokens], 1), rtol=1e-10, atol=1e-12)
