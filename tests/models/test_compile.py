"""The compiled segment step: two graphs for all segments, the same masks, the same gradients."""

import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification

pytestmark = pytest.mark.slow


def gradients(model, ids, mask, labels):
    torch.manual_seed(3)
    model.zero_grad()
    model(ids, attention_mask=mask, labels=labels).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(
    "form",
    [
        {"retention_schedule": "ltp"},
        {"retention_schedule": "none"},
        {"associative_memory": True, "retention_form": "gate", "memory_layout": "read_write"},
    ],
    ids=str,
)
def test_compiled_replay_equals_full_backpropagation_with_dropout(form):
    torch._dynamo.reset()
    torch.manual_seed(0)
    config = RmaatConfig(
        vocab_size=16,
        num_labels=4,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_seq_len=96,
        num_segments=6,
        hidden_dropout_prob=0.1,
        **form,
    )
    model = RmaatForSequenceClassification(config).train()
    ids = torch.randint(0, 16, (3, 90))
    mask = (torch.arange(90) < torch.tensor([90, 50, 7])[:, None]).long()
    labels = torch.tensor([0, 1, 2])
    model.config.memory_replay_backprop = False
    wanted = gradients(model, ids, mask, labels)
    model.config.memory_replay_backprop = True
    model.rmaat.encoder.compile(dynamic=False)
    torch._dynamo.utils.counters.clear()
    found = gradients(model, ids, mask, labels)
    gradients(model, ids[:, :70], mask[:, :70], labels)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    for name, grad in wanted.items():
        assert (found[name] - grad).norm() <= 1e-5 * grad.norm(), name
