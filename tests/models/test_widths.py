"""The last segment is computed as far as its tokens go: the same results for less work."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from rmaat.models import segment
from rmaat.presets import MODELS

IDS = torch.randint(0, 16, (2, 21), generator=torch.Generator().manual_seed(4))
MASK = (torch.arange(21) < torch.tensor([21, 19])[:, None]).long()
LABELS = torch.tensor([1, 3])


def outcome(model):
    """Logits, memory and the gradients of all parameters."""
    model.zero_grad()
    out = model(IDS, attention_mask=MASK, labels=LABELS)
    out.loss.backward()
    return [out.logits, out.memory, *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.fixture
def narrow(monkeypatch):
    """Widths in steps of 2: the 21 tokens end two segments and 6 positions of 8, or 22 positions of 32."""
    monkeypatch.setattr(segment, "WIDTH_STEP", 2)


@pytest.mark.parametrize("name", MODELS.names())
def test_results_and_gradients_are_those_of_whole_segments(make_model, narrow, monkeypatch, name):
    model = make_model(**{"hidden_dropout_prob": 0.0, **MODELS[name].fixed}).train()
    found = outcome(model)
    whole = model.config.positions_per_segment
    monkeypatch.setattr(segment.SegmentEncoder, "widths", lambda self, lengths: [whole] * len(lengths))
    for own, wanted in zip(found, outcome(model), strict=True):
        assert (own - wanted).norm() <= 1e-10 * wanted.norm()


def test_replay_equals_full_backpropagation_with_dropout(make_model, narrow):
    results = []
    for replayed in (True, False):
        model = make_model(memory_replay_backprop=replayed).train()
        torch.manual_seed(5)
        results.append(outcome(model))
    for own, wanted in zip(*results, strict=True):
        assert (own - wanted).norm() <= 1e-10 * wanted.norm()


def operations(model, tokens):
    ids = torch.zeros(32, tokens, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(ids).logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("attention_type", ["astro", "softmax"])
def test_a_short_row_costs_little_of_a_long_segment(make_model, attention_type):
    model = make_model(attention_type=attention_type, max_seq_len=1024, num_segments=2)
    assert operations(model, 60) < operations(model, 512) / 6


def test_a_compiled_steps_segments_are_whole(make_model):
    encoder = make_model(max_seq_len=1024, num_segments=2).rmaat.encoder
    lengths = np.array([700, 188])
    assert encoder.widths(lengths) == [512, 192]
    encoder.compile()
    assert encoder.widths(lengths) == [512, 512]
