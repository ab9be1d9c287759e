"""Mistakes end in one clear message."""

import pytest
import torch
from tests.cache.models import llama, prompts, qwen
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    LlamaModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from rmaat.cache import (
    KeyDiffCache,
    NestedKVCache,
    SnapKVCache,
    StreamingCache,
    ZeroMergeCache,
    attach,
)
from rmaat.cache.attention import NAME
from rmaat.errors import UserError

CACHES = {
    KeyDiffCache: 2,
    NestedKVCache: 5,
    SnapKVCache: 33,
    StreamingCache: 5,
    ZeroMergeCache: 3,
}
"""The least budgets."""


@pytest.mark.parametrize("cache", CACHES)
def test_a_budget_is_a_whole_number_above_the_protected_entries(cache):
    for budget in (CACHES[cache] - 1, 0, -3):
        with pytest.raises(UserError, match=f"budget {budget} is below {CACHES[cache]}: "):
            cache(budget)
    for budget in ("512", 0.2, True, None):
        with pytest.raises(UserError, match="budget must be a whole number"):
            cache(budget)


def test_the_least_budget_works():
    model, ids = llama(torch.float32), prompts(2, 20)
    for cache, budget in CACHES.items():
        out = model.generate(ids, past_key_values=cache(budget), max_new_tokens=12, do_sample=False)
        assert out.shape == (2, 32)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recent_share": 0}, "recent_share must be between 0 and 1"),
        ({"residual_share": 1.0}, "residual_share must be between 0 and 1"),
        ({"recent_share": "half"}, "recent_share must be between 0 and 1, not 'half'"),
        ({"decay": 1.5}, "decay must be above 0 and at most 1"),
        ({"decay": True}, "decay must be above 0 and at most 1"),
        ({"alpha": -1}, "alpha must be a number from 0"),
        ({"alpha": float("nan")}, "alpha must be a number from 0"),
    ],
)
def test_settings_of_zeromerge_are_in_range(settings, message):
    with pytest.raises(UserError, match=message):
        ZeroMergeCache(64, **settings)


@pytest.mark.parametrize("sinks", [-1, 1.5, True])
def test_sinks_are_a_whole_number(sinks):
    with pytest.raises(UserError, match="sinks must be a whole number"):
        StreamingCache(64, sinks=sinks)


@pytest.mark.parametrize("settings", [{"window": 0}, {"window": 2.0}, {"kernel": 4}, {"kernel": 0}])
def test_window_and_kernel_of_snapkv(settings):
    with pytest.raises(UserError, match=f"{next(iter(settings))} must be "):
        SnapKVCache(64, **settings)


SMALL = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 32}
WINDOW = {**SMALL, **HEADS, "sliding_window": 8}
OTHERS = {
    "recurrent": lambda: MambaForCausalLM(MambaConfig(**SMALL)),
    "sliding_attention": lambda: MistralForCausalLM(MistralConfig(**WINDOW)),
    "linear_attention": lambda: JambaForCausalLM(
        JambaConfig(**SMALL, **HEADS, num_experts=1, use_mamba_kernels=False, mamba_d_state=4)
    ),
    "no causal language model": lambda: T5ForConditionalGeneration(
        T5Config(vocab_size=48, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
    ),
    "LlamaModel is no causal": lambda: LlamaModel(llama(attached=False).config),
    "cannot be exchanged": lambda: BloomForCausalLM(BloomConfig(**SMALL, n_layer=1, n_head=4)),
    "full attention: sliding_attention": lambda: GptOssForCausalLM(
        GptOssConfig(**SMALL, **HEADS, head_dim=8, num_local_experts=2)
    ),
    "not 'Linear'": lambda: nn.Linear(2, 2),
    "not 'str'": lambda: "gpt2",
}


@pytest.mark.parametrize("message", OTHERS)
def test_attach_refuses_other_models(message):
    model = OTHERS[message]()
    with pytest.raises(UserError, match=message):
        attach(model)
    assert getattr(getattr(model, "config", None), "_attn_implementation", None) != NAME


def test_a_model_that_is_not_attached_is_named():
    """With one layer the second forward pass shows it."""
    for layers in (2, 1):
        model = llama(attached=False, num_hidden_layers=layers)
        with pytest.raises(UserError, match=r"StreamingCache; call rmaat.cache.attach\(model\)"):
            model.generate(prompts(1, 9), past_key_values=StreamingCache(64), max_new_tokens=3)


def test_a_window_that_was_not_refused_by_attach_is_refused():
    model = OTHERS["sliding_attention"]()
    model.set_attn_implementation(NAME)
    with pytest.raises(UserError, match="without window"):
        model(prompts(1, 9), past_key_values=StreamingCache(64))


def test_an_attached_model_is_the_same_without_a_budget():
    model, ids = qwen(torch.float32), prompts(2, 12)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.no_grad():
        one = model(ids, attention_mask=mask).logits
        model.set_attn_implementation("sdpa")
        assert torch.equal(model(ids, attention_mask=mask).logits, one)


def test_prompts_without_new_tokens():
    model, ids = llama(), prompts(2, 12)
    with pytest.raises(UserError, match="no token that the cache has not seen"):
        model(ids[:, :0], past_key_values=StreamingCache(64))
    mask, cache = torch.ones_like(ids), StreamingCache(64)
    without_padding = llama(pad_token_id=None)
    with pytest.raises(UserError, match="no token that the cache has not seen"):
        without_padding.generate(ids[:, :0], past_key_values=cache, max_new_tokens=1)
    mask[0, :3] = 0
    arguments = {"attention_mask": mask, "past_key_values": cache, "max_new_tokens": 1}
    model.generate(ids, **arguments)
    with pytest.raises(UserError, match="the attention mask has no token that the cache has not"):
        model.generate(ids, **arguments)


def test_masks_and_batches():
    model, ids, cache = llama(), prompts(2, 12), StreamingCache(64)
    mask = torch.ones_like(ids)
    mask[1] = 0
    with pytest.raises(UserError, match="row 1 of the attention mask has no token"):
        model(ids, attention_mask=mask, past_key_values=StreamingCache(64))
    with pytest.raises(UserError, match="no 4D mask"):
        model(ids, attention_mask=torch.zeros(2, 1, 12, 12), past_key_values=StreamingCache(64))
    model(ids, past_key_values=cache)
    with pytest.raises(UserError, match="the cache holds 2 rows, the new tokens have 1"):
        model(ids[:1], past_key_values=cache)


def test_tokens_cannot_be_taken_back():
    model = llama()
    guesses = {"prompt_lookup_num_tokens": 2, "max_new_tokens": 9}
    with pytest.raises(UserError, match="cannot take tokens back"):
        model.generate(prompts(1, 9), past_key_values=ZeroMergeCache(64), **guesses)
