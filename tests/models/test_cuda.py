"""Replay on a CUDA device: the gradient of full backpropagation, the random state left as it was, the floor of memory."""

import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.bench.measure import measure
from rmaat.bench.shape import Shape

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")
SETTINGS = {
    "vocab_size": 16,
    "num_labels": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_seq_len": 96,
    "num_segments": 6,
    "hidden_dropout_prob": 0.1,
    "retention_schedule": "none",
}


def make_model(**settings) -> RmaatForSequenceClassification:
    torch.manual_seed(0)
    return RmaatForSequenceClassification(RmaatConfig(**{**SETTINGS, **settings})).train().to(CUDA)


def gradients(model, autocast=torch.float32, scale: float = 1.0, memory_length: int = 96):
    """Of one ragged batch, in float32 whatever is computed in."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 16, (3, memory_length), generator=generator).to(CUDA)
    mask = (torch.arange(memory_length) < torch.tensor([memory_length, 50, 7])[:, None]).long().to(CUDA)
    labels = torch.tensor([0, 1, 2], device=CUDA)
    torch.manual_seed(3)
    model.zero_grad()
    with torch.autocast("cuda", dtype=autocast, enabled=autocast != torch.float32):
        loss = model(ids, attention_mask=mask, labels=labels).loss
    (loss * scale).backward()
    return {name: p.grad / scale for name, p in model.named_parameters()}


def assert_close(found, wanted, bound: float) -> None:
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert grad.norm() > 0, name
        assert (found[name] - grad).norm() <= bound * grad.norm(), name


@pytest.mark.parametrize("attention_type", ["astro", "softmax"])
@pytest.mark.parametrize("buffer", ["device", "cpu"])
def test_replay_equals_full_backpropagation_in_float64(attention_type, buffer):
    found = gradients(make_model(attention_type=attention_type, replay_buffer=buffer).double())
    wanted = gradients(make_model(attention_type=attention_type, memory_replay_backprop=False).double())
    assert_close(found, wanted, 1e-10)


def test_the_model_is_the_same_on_both_devices():
    on_cuda = make_model().double().eval()
    on_cpu = make_model().cpu().double().eval()
    ids = torch.randint(0, 16, (3, 96), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = on_cuda(ids.to(CUDA)).logits.cpu(), on_cpu(ids).logits
    assert (found - wanted).norm() <= 1e-10 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_replay_under_autocast_and_scaled_losses(dtype):
    scale = 2.0**10 if dtype == torch.float16 else 1.0
    found = gradients(make_model(), dtype, scale)
    wanted = gradients(make_model(memory_replay_backprop=False), dtype, scale)
    assert_close(found, wanted, 0.02)


def test_the_random_state_ends_where_full_backpropagation_leaves_it():
    ends = []
    for replay in (True, False):
        gradients(make_model(memory_replay_backprop=replay))
        ends.append(torch.cuda.get_rng_state())
    assert torch.equal(*ends)


@pytest.mark.parametrize("budget", [2, "64MiB", 0.5])
def test_kept_segments_leave_the_gradient_as_it_is(budget):
    found = gradients(make_model(replay_budget=budget).double())
    wanted = gradients(make_model(memory_replay_backprop=False).double())
    assert_close(found, wanted, 1e-10)


def test_compiled_replay_equals_full_backpropagation_with_dropout():
    torch._dynamo.reset()
    wanted = gradients(make_model(memory_replay_backprop=False))
    model = make_model()
    model.rmaat.encoder.compile(dynamic=False)
    torch._dynamo.utils.counters.clear()
    found = gradients(model)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert_close(found, wanted, 1e-5)


def test_the_peak_of_replay_is_that_of_one_segment():
    shape = Shape()
    alone = measure("one_segment", shape, "cuda", 1, 1).peak_bytes
    assert measure("replay", shape, "cuda", 1, 1).peak_bytes <= 1.1 * alone
    assert measure("full", shape, "cuda", 1, 1).peak_bytes >= 11 * alone


def test_a_buffer_on_the_cpu_makes_room_on_the_device():
    peaks = {}
    for buffer in ("device", "cpu"):
        model = make_model(num_memory_tokens=512, max_seq_len=16 * 64, num_segments=64, replay_buffer=buffer)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradients(model, memory_length=16 * 64)
        peaks[buffer] = torch.cuda.max_memory_allocated() - before
    stored = 62 * 3 * 512 * 32 * 4
    assert peaks["device"] - peaks["cpu"] >= 0.9 * stored
