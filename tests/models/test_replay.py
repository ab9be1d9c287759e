"""Replay against full backpropagation through the whole model, in float64, per parameter tensor."""

import pytest
import torch

BOUND = 1e-10


def gradients(model, batch, memory=None):
    """Loss, and the gradient of every parameter and of the input memory, with the same dropout masks at each call."""
    torch.manual_seed(5)
    model.zero_grad()
    model.train()
    if memory is not None:
        memory = memory.clone().requires_grad_()
    out = model(**batch, memory=memory)
    # The final memory and readout take part, so that their gradients travel too.
    loss = out.loss + (out.memory * torch.linspace(-1, 1, out.memory.shape[-1], dtype=torch.float64)).sum()
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()}
    if memory is not None:
        found["input memory"] = memory.grad
    return loss.item(), found


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert grad is not None, name
        assert torch.isfinite(grad).all(), name
        assert grad.norm() > 0, name
        assert (found[name] - grad).norm() / grad.norm() <= BOUND, name


@pytest.mark.parametrize("schedule", ["ltp", "plateau", "none", "constant", "learned"])
@pytest.mark.parametrize("attention", ["astro", "softmax"])
def test_replay_equals_full(make_model, ragged, schedule, attention):
    results = [
        gradients(
            make_model(memory_replay_backprop=replay, retention_schedule=schedule, attention_type=attention), ragged
        )
        for replay in (True, False)
    ]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-13)
    assert_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("settings", [{"norm_first": True}, {"readout": "running_mean"}, {"readout": "memory"}])
@pytest.mark.parametrize("schedule", ["plateau", "none"])
def test_replay_equals_full_in_other_forms(make_model, ragged, settings, schedule):
    results = [
        gradients(make_model(memory_replay_backprop=replay, retention_schedule=schedule, **settings), ragged)
        for replay in (True, False)
    ]
    assert_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("schedule", ["plateau", "none"])
def test_the_input_memory_gets_its_gradient(make_model, ragged, schedule):
    memory = torch.randn(4, 2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for replay in (True, False):
        model = make_model(memory_replay_backprop=replay, retention_schedule=schedule)
        model.rmaat.first_memory.requires_grad_(False)
        loss, found = gradients(model, ragged, memory)
        assert found.pop("rmaat.first_memory") is None
        results.append((loss, found))
    assert_equal(results[0][1], results[1][1])


def test_dropout_is_really_on_and_the_same_in_both(make_model, ragged):
    model = make_model()
    on, _ = gradients(model, ragged)
    again, _ = gradients(model, ragged)
    model.config.hidden_dropout_prob = 0.0
    off, _ = gradients(model, ragged)
    assert on == again
    assert on != off


def test_dropout_differs_from_segment_to_segment(make_model):
    """The same token in every segment, memory cut off: equal masks would give equal segments."""
    model = make_model(readout="running_mean", num_memory_tokens=0, hidden_dropout_prob=0.5).train()
    torch.manual_seed(0)
    first = model.rmaat(torch.full((1, 8), 3)).readout
    torch.manual_seed(0)
    both = model.rmaat(torch.full((1, 16), 3)).readout
    assert not torch.allclose(both - first, first)


def test_leaving_training_mode_before_backward_changes_nothing(make_model, ragged):
    model = make_model().train()
    found = []
    for switch in (False, True):
        torch.manual_seed(5)
        model.train()
        loss = model(**ragged).loss
        model.train(not switch)
        found.append(torch.autograd.grad(loss, list(model.parameters())))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def test_a_models_other_random_draws_are_left_alone(make_model, ragged):
    """One draw a call, whatever the number of segments and the way back."""
    states = []
    for replay in (True, False):
        torch.manual_seed(9)
        model = make_model(memory_replay_backprop=replay).train()
        torch.manual_seed(9)
        model(**ragged).loss.backward()
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_truncation_reaches_back_over_a_rows_own_segments(make_model, ragged):
    """With k = 4 it is the full gradient; with k = 1 the first memory is reached only by rows of one segment."""
    full = gradients(make_model(memory_replay_backprop=False), ragged)[1]
    wide = gradients(make_model(memory_replay_backprop=False, truncated_segments=4), ragged)[1]
    assert_equal(wide, full)
    long_rows = {name: x[:2] for name, x in ragged.items()}
    narrow = gradients(make_model(memory_replay_backprop=False, truncated_segments=1), long_rows)[1]
    assert narrow["rmaat.first_memory"] is None or narrow["rmaat.first_memory"].norm() == 0
    short = gradients(make_model(memory_replay_backprop=False, truncated_segments=1), ragged)[1]
    assert short["rmaat.first_memory"].norm() > 0


def test_gradient_accumulation_adds_up(make_model, ragged):
    model = make_model(hidden_dropout_prob=0.0).train()
    model(**ragged).loss.backward()
    whole = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    for row in range(4):
        (model(**{name: x[row : row + 1] for name, x in ragged.items()}).loss / 4).backward()
    assert_equal({name: p.grad for name, p in model.named_parameters()}, whole)
