"""Replay against full backpropagation through the whole model, in float64, per parameter tensor."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

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


def assert_equal(found, wanted, faded=()):
    """Per tensor; those that have `faded` are 0 in both."""
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        if name in faded:
            assert not grad.any(), name
            assert not found[name].any(), name
            continue
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
    off, _ = gradients(make_model(hidden_dropout_prob=0.0), ragged)
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


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [
        ("ltp", {}),
        ("none", {"replay_buffer": "cpu"}),
        pytest.param("none", {"replay_budget": 7}, marks=pytest.mark.slow),
    ],
)
def test_hundreds_of_segments(make_model, schedule, settings):
    """`ltp` hands almost nothing on over as many; with `none` the first segment's gradient counts as the last's does."""
    ids = torch.randint(0, 16, (2, 200), generator=torch.Generator().manual_seed(3))
    mask = (torch.arange(200) < torch.tensor([200, 171])[:, None]).long()
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([1, 3])}
    long = {"retention_schedule": schedule, "max_seq_len": 200, "num_segments": 200, "num_hidden_layers": 1}
    wanted = gradients(make_model(memory_replay_backprop=False, **long), batch)[1]
    faded = ["rmaat.first_memory"] if schedule == "ltp" else []
    assert_equal(gradients(make_model(**long, **settings), batch)[1], wanted, faded)


def every_segment(model, batch, seed=5):
    """Gradients of the mean of all segments' losses."""
    torch.manual_seed(seed)
    model.train().zero_grad()
    out = model(**batch, output_segment_logits=True)
    logits_NC = out.segment_logits.flatten(0, 1)
    torch.nn.functional.cross_entropy(
        logits_NC, batch["labels"].repeat_interleave(out.segment_logits.shape[1])
    ).backward()
    return out, {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("readout", ["mean", "running_mean", "memory"])
@pytest.mark.parametrize("budget", [None, 3])
def test_a_loss_on_every_segment(make_model, ragged, readout, budget):
    replayed = make_model(readout=readout, replay_budget=budget, retention_schedule="none")
    whole = make_model(readout=readout, memory_replay_backprop=False, retention_schedule="none")
    assert_equal(every_segment(replayed, ragged)[1], every_segment(whole, ragged)[1])


def test_the_logits_of_a_segment_are_those_of_the_sequence_up_to_it(make_model, ragged):
    model = make_model(readout="running_mean").eval()
    out = model(**ragged, output_segment_logits=True)
    for index, end in enumerate((8, 16, 24, 32)):
        part = model(
            ragged["input_ids"][:, :end], ragged["attention_mask"][:, :end], total_segments=torch.tensor([4, 3, 1, 1])
        )
        torch.testing.assert_close(out.segment_logits[:, index], part.logits, rtol=1e-12, atol=1e-12)
    assert model(**ragged).segment_logits is None


def test_weights_given_for_one_call_are_those_of_its_backward_pass(make_model, ragged):
    """As in meta-learning: the module holds its own again by the time of the backward pass."""
    found = []
    for replay in (True, False):
        model = make_model(memory_replay_backprop=replay).train()
        generator = torch.Generator().manual_seed(4)
        given = {
            name: (p.detach() * (1 + 0.3 * torch.rand(p.shape, dtype=p.dtype, generator=generator))).requires_grad_()
            for name, p in model.named_parameters()
        }
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        torch.manual_seed(5)
        loss = functional_call(model, given, (), dict(ragged)).loss
        grads = torch.autograd.grad(loss, list(given.values()))
        found.append(dict(zip(given, grads, strict=True)))
        assert all(p.grad is None and torch.equal(p, own[name]) for name, p in model.named_parameters())
    assert_equal(*found)


def test_inside_a_checkpoint(make_model, ragged):
    model = make_model().train()
    wanted = gradients(model, ragged)[1]
    model.zero_grad()
    torch.manual_seed(5)

    def loss(ids, mask, labels):
        out = model(ids, mask, labels=labels)
        return out.loss + (out.memory * torch.linspace(-1, 1, out.memory.shape[-1], dtype=torch.float64)).sum()

    checkpoint(loss, *ragged.values(), use_reentrant=False).backward()
    assert_equal({name: p.grad for name, p in model.named_parameters()}, wanted)


def test_two_threads_and_one_model(make_model, ragged):
    """One's replayed segments stand in the module while the other computes."""
    model = make_model(hidden_dropout_prob=0.0).train()
    names, parameters = zip(*model.named_parameters(), strict=True)

    def steps(count):
        for _ in range(count):
            out = model(**ragged)
            loss = out.loss + (out.memory * torch.linspace(-1, 1, out.memory.shape[-1], dtype=torch.float64)).sum()
            yield dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))

    (wanted,) = steps(1)
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda count: list(steps(count)), (8, 8)):
            for one in found:
                assert_equal(one, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_scaled_loss_of_low_precision_is_unscaled_and_skipped_when_infinite(make_model, ragged, dtype):
    """GradScaler sees the sums over segments, once; a step whose gradient overflows is left out."""
    model, twin = make_model().float().train(), make_model(memory_replay_backprop=False).float().train()
    weights = []
    for each in (model, twin):
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        optimizer = torch.optim.SGD(each.parameters(), lr=0.1)
        for factor in (1.0, torch.inf, 1.0):
            torch.manual_seed(5)
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=dtype):
                loss = each(**ragged).loss * factor
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 2.0**9
        weights.append({name: p.detach().clone() for name, p in each.named_parameters()})
    start = dict(make_model().float().named_parameters())
    for name, weight in weights[0].items():
        moved = (weights[1][name] - start[name]).norm()
        assert moved > 0, name
        assert (weight - weights[1][name]).norm() / moved < 2e-2, name


def test_inference_beside_a_backward_pass_of_other_weights(make_model, ragged):
    """Those are hung into the module while a segment is computed again."""
    model = make_model(hidden_dropout_prob=0.0).train()
    doubled = {name: (2 * p.detach()).requires_grad_() for name, p in model.named_parameters()}
    with torch.no_grad():
        wanted = model(**ragged).logits

    def inferred():
        with torch.no_grad():
            return [model(**ragged).logits for _ in range(60)]

    # functional_call itself changes the module for all threads: only backward passes may run beside others.
    losses = [functional_call(model, doubled, (), dict(ragged)).loss for _ in range(20)]
    with ThreadPoolExecutor(2) as pool:
        done = pool.submit(lambda: [torch.autograd.grad(loss, list(doubled.values())) for loss in losses])
        found = pool.submit(inferred).result()
        done.result()
    assert all(torch.equal(logits, wanted) for logits in found)


def replace_a_layer(model):
    block = model.rmaat.encoder.blocks[0]
    block.expand = torch.nn.Linear(block.expand.in_features, block.expand.out_features, dtype=torch.float64)


def normalise_a_weight(model):
    torch.nn.utils.parametrizations.weight_norm(model.rmaat.encoder.blocks[1].contract)


@pytest.mark.parametrize("change", [replace_a_layer, normalise_a_weight])
def test_other_layers_by_the_time_of_the_backward_pass_are_refused(make_model, ragged, change):
    model = make_model().train()
    loss = model(**ragged).loss
    change(model)
    with pytest.raises(ValueError, match="between forward and backward"):
        loss.backward()


def test_a_weight_that_two_layers_share_gets_the_sum_of_both_gradients(make_model, ragged):
    results = []
    for replay in (True, False):
        model = make_model(memory_replay_backprop=replay)
        one, other = model.rmaat.encoder.blocks
        other.expand.weight = one.expand.weight
        results.append(gradients(model, ragged)[1])
    assert_equal(*results)


def test_parametrised_weights_are_replayed_and_refused_under_a_cache(make_model, ragged):
    def made(**settings):
        model = make_model(**settings)
        for block in model.rmaat.encoder.blocks:
            torch.nn.utils.parametrizations.weight_norm(block.expand)
        return model

    assert_equal(gradients(made(), ragged)[1], gradients(made(memory_replay_backprop=False), ragged)[1])
    with torch.nn.utils.parametrize.cached(), pytest.raises(ValueError, match=r"parametrize\.cached"):
        made().train()(**ragged)


def test_a_step_that_writes_a_buffer_is_refused(make_model, ragged):
    model = make_model().train()
    torch.nn.utils.parametrizations.spectral_norm(model.rmaat.encoder.blocks[0].expand)
    with pytest.raises(ValueError, match=r"buffer 'blocks\.0\.expand.*eval mode"):
        model(**ragged)
    model.rmaat.encoder.blocks[0].eval()
    model(**ragged).loss.backward()


def test_a_trained_tensor_from_outside_the_layers_is_refused(make_model, ragged):
    """Its gradient would be lost."""
    model = make_model().train()
    prompt = torch.zeros(16, dtype=torch.float64, requires_grad=True)
    handle = model.rmaat.encoder.blocks[0].register_forward_hook(lambda module, inputs, out: out + prompt)
    with pytest.raises(ValueError, match=r"trained tensor of shape \(16,\)"):
        model(**ragged)
    model.config.memory_replay_backprop = False
    model(**ragged).loss.backward()
    assert prompt.grad.any()
    handle.remove()
