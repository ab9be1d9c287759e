"""The ways of going back, on small recurrences that have nothing to do with attention."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rmaat.backprop import Checkpoint, Full, Recurrence, Replay, Tensors, Truncated
from rmaat.backprop.reference import ReferenceReplay
from rmaat.budget import Budget

F64 = torch.float64

EXACT = [Replay(), Checkpoint(), ReferenceReplay()]
"""The kinds that compute segments twice and return the gradient of `Full`."""

exact = pytest.mark.parametrize("kind", EXACT, ids=lambda kind: type(kind).__name__)


def relative(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm().clamp_min(1e-300)).item()


class Toy:
    """state' = tanh(state W + x_t + shared) where the row is active, and a running sum of the states."""

    def __init__(self, lengths: tuple[int, ...], width: int = 3, state_grad: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int, grad: bool = True) -> Tensor:
            return torch.randn(*shape, dtype=F64, generator=generator).requires_grad_(grad)

        rows, total = len(lengths), max(lengths)
        self.weight = draw(width, width)
        self.shared = draw(width)
        self.inputs = draw(total, rows, width)
        self.first = draw(rows, width, grad=state_grad)
        self.active = torch.arange(total)[:, None] < torch.tensor(lengths)
        self.lengths = lengths
        self.calls: list[tuple[int, bool]] = []

    def step(self, index: int, parameters: Tensors, shared: Tensors, segment: Tensors, state: Tensors) -> Tensors:
        self.calls.append((index, torch.is_grad_enabled()))
        (x, active), (hidden, total) = segment, state
        new = torch.tanh(hidden @ parameters[0] + x + shared[0])
        active = active[:, None]
        return torch.where(active, new, hidden), torch.where(active, total + new, total)

    def recurrence(self) -> Recurrence:
        state = (self.first, torch.zeros_like(self.first))
        return Recurrence(self.step, (self.weight,), (self.shared,), (self.inputs, self.active), state, self.lengths)

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in (self.weight, self.shared, self.inputs, self.first) if x.requires_grad]

    def gradients(self, kind) -> tuple[Tensor, ...]:
        hidden, total = kind(self.recurrence())
        return torch.autograd.grad((hidden**2).sum() + total.sin().sum(), self.leaves)


@exact
@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any), state_grad=st.booleans())
def test_the_gradient_is_that_of_full_backpropagation(kind, lengths, state_grad):
    toy = Toy(tuple(lengths), state_grad=state_grad)
    for found, wanted in zip(toy.gradients(kind), toy.gradients(Full()), strict=True):
        assert relative(found, wanted) < 1e-13


@exact
@settings(deadline=None, max_examples=10)
@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_values_are_those_of_full(kind, lengths):
    """Bit for bit, the histories too, also if no row has a segment."""
    toy = Toy(tuple(lengths))
    loop = replace(toy.recurrence(), history=(1, 0))
    for found, wanted in zip(kind(loop), Full()(loop), strict=True):
        assert torch.equal(found, wanted)


def test_full_equals_finite_differences():
    toy = Toy((3, 2))

    def loss(*leaves: Tensor) -> Tensor:
        toy.weight, toy.shared, toy.inputs, toy.first = leaves
        hidden, total = Full()(toy.recurrence())
        return (hidden**2).sum() + total.sin().sum()

    assert torch.autograd.gradcheck(loss, toy.leaves)


def test_replay_computes_each_segment_but_the_last_once_more():
    toy = Toy((5,))
    toy.gradients(Replay())
    forward, again = toy.calls[:5], toy.calls[5:]
    assert forward == [(0, False), (1, False), (2, False), (3, False), (4, True)]
    assert again == [(3, True), (2, True), (1, True), (0, True)]


@pytest.mark.parametrize(("kind", "again"), [(Checkpoint(), 5), (ReferenceReplay(), 5), (Full(), 0)])
def test_kinds_that_recompute_compute_every_segment_once_more(kind, again):
    toy = Toy((5,))
    toy.gradients(kind)
    assert [index for index, _ in toy.calls[:5]] == [0, 1, 2, 3, 4]
    assert toy.calls[5:] == [(index, True) for index in reversed(range(again))]
    assert kind.recomputes == (again > 0)


@pytest.mark.parametrize("kind", [Replay(), Checkpoint()])
def test_a_single_segment_is_computed_once(kind):
    toy = Toy((1, 1))
    toy.gradients(kind)
    assert toy.calls == [(0, True)]


def test_a_checkpoint_saves_states_and_no_activations():
    """What autograd packs under `Checkpoint` does not grow with the width of a segment's inside."""

    def saved_bytes(kind, inner: int) -> int:
        up, down = torch.randn(2, 4, inner, dtype=F64).requires_grad_()

        def step(index, parameters, shared, segment, state):
            return (state[0] + torch.tanh(state[0] @ parameters[0]) @ parameters[1].T,)

        storages = {}

        def pack(x: Tensor) -> Tensor:
            storages[x.untyped_storage().data_ptr()] = x
            return x

        loop = Recurrence(step, (up, down), (), (), (torch.ones(3, 4, dtype=F64),), (6,) * 3)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            kind(loop)
        parameters = {up.untyped_storage().data_ptr()}
        return sum(x.nbytes for place, x in storages.items() if place not in parameters)

    assert saved_bytes(Checkpoint(), 64) == saved_bytes(Checkpoint(), 8) <= 6 * 3 * 4 * 8
    assert saved_bytes(Full(), 64) > 6 * 3 * 64 * 8


@exact
def test_without_gradients_nothing_is_computed_twice_or_kept(kind):
    toy = Toy((4,))
    with torch.no_grad():
        state = kind(toy.recurrence())
    assert len(toy.calls) == 4
    assert not state[0].requires_grad


@settings(deadline=None, max_examples=20)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), k=st.integers(1, 7))
def test_truncation_gives_each_row_the_gradient_of_its_own_last_segments(lengths, k):
    """Each row alone, its earlier segments run without gradients, is the definition."""
    toy = Toy(tuple(lengths))
    hidden, total = Truncated(k)(toy.recurrence())
    found = torch.autograd.grad((hidden**2).sum() + total.sin().sum(), toy.leaves, allow_unused=True)
    wanted = [torch.zeros_like(x) for x in toy.leaves]
    for row, length in enumerate(lengths):
        state = tuple(x[row : row + 1] for x in toy.recurrence().state)
        for index in range(length):
            if 0 < index == length - k:
                state = tuple(x.detach() for x in state)
            given_one = (toy.inputs[index, row : row + 1], toy.active[index, row : row + 1])
            state = toy.step(index, (toy.weight,), (toy.shared,), given_one, state)
        row_loss = (state[0] ** 2).sum() + state[1].sin().sum()
        for total_grad, grad in zip(wanted, torch.autograd.grad(row_loss, toy.leaves, allow_unused=True), strict=True):
            if grad is not None:
                total_grad += grad
    for one, other in zip(found, wanted, strict=True):
        assert relative(torch.zeros_like(other) if one is None else one, other) < 1e-12


def test_truncation_keeps_no_graph_of_the_segments_before():
    toy = Toy((6, 6))
    Truncated(2)(toy.recurrence())
    assert [grad for _, grad in toy.calls] == [False] * 4 + [True] * 2


@exact
def test_gradients_of_losses_add_up(kind):
    toy = Toy((4, 2))
    one, two = kind(toy.recurrence()), kind(toy.recurrence())
    both = torch.autograd.grad(one[0].sum() + (two[1] ** 2).sum(), toy.leaves)
    first = torch.autograd.grad(Full()(toy.recurrence())[0].sum(), toy.leaves)
    second = torch.autograd.grad((Full()(toy.recurrence())[1] ** 2).sum(), toy.leaves)
    for found, a, b in zip(both, first, second, strict=True):
        assert relative(found, a + b) < 1e-13


def test_grad_attributes_are_written_once_and_only_by_autograd():
    toy = Toy((5,))
    seen = []
    toy.weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.clone()))
    Replay()(toy.recurrence())[0].sum().backward()
    assert len(seen) == 1


@exact
def test_a_frozen_parameter_gets_no_gradient_and_the_others_theirs(kind):
    toy = Toy((4,))
    toy.weight.requires_grad_(False)
    for found, wanted in zip(toy.gradients(kind), toy.gradients(Full()), strict=True):
        assert relative(found, wanted) < 1e-13


def test_a_second_backward_is_refused_and_retaining_allows_it():
    toy = Toy((4,))
    loss = Replay()(toy.recurrence())[0].sum()
    loss.backward(retain_graph=True)
    once = toy.weight.grad.clone()
    loss.backward()
    assert relative(toy.weight.grad, 2 * once) < 1e-14
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_changing_what_was_stored_is_refused():
    toy = Toy((4,))
    loss = Replay()(toy.recurrence())[0].sum()
    with torch.no_grad():
        toy.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_an_exception_in_a_replayed_segment_leaves_nothing_behind():
    toy = Toy((5,))
    wanted = toy.gradients(Replay())
    recurrence, calls = toy.recurrence(), itertools.count()

    def failing(*arguments):
        if next(calls) == 6:
            raise OverflowError("as if out of memory")
        return toy.step(*arguments)

    loss = Replay()(replace(recurrence, step=failing))[0].sum()
    with pytest.raises(OverflowError):
        loss.backward()
    assert toy.weight.grad is None
    assert torch.is_grad_enabled()
    for found, again in zip(wanted, toy.gradients(Replay()), strict=True):
        assert torch.equal(found, again)


@pytest.mark.parametrize("kind", [Replay(), Checkpoint()])
def test_autocast_is_restored_in_the_replay_and_its_cache_left_alone(kind):
    """Under bfloat16 both kinds round the same; a weight cached without gradients would lose its last segment's."""
    torch.manual_seed(0)
    weight = torch.randn(4, 4, requires_grad=True)
    x = torch.randn(3, 2, 4)

    def step(index, parameters, shared, segment, state):
        return (torch.tanh(state[0] @ parameters[0]).float() + segment[0],)

    grads = []
    for each in (kind, Full()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (out,) = each(Recurrence(step, (weight,), (), (x,), (torch.ones(2, 4),), (3, 3)))
        assert out.grad_fn is not None
        grads.append(torch.autograd.grad(out.sum(), weight)[0])
    assert relative(grads[0], grads[1]) < 1e-2
    assert not torch.is_autocast_enabled("cpu")


def test_bfloat16_gradients_are_summed_in_float32():
    """2,000 equal terms of 1: a bfloat16 sum stops growing at 256."""
    weight = torch.zeros(1, dtype=torch.bfloat16, requires_grad=True)

    def step(index, parameters, shared, segment, state):
        return (state[0] + parameters[0],)

    (out,) = Replay()(Recurrence(step, (weight,), (), (torch.zeros(2000, 1),), (torch.zeros(1, 1),), (2000,)))
    out.sum().backward()
    assert weight.grad.item() == pytest.approx(2000, rel=0.01)


def history_gradients(toy: Toy, kind, seed: int = 3) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The history of the running sums, and gradients of a loss on it and on the final state."""
    hidden, _, sums = kind(replace(toy.recurrence(), history=(1,)))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(sums.shape, dtype=F64, generator=generator)
    loss = (hidden**2).sum() + (weights * sums.sin()).sum()
    return sums.detach(), torch.autograd.grad(loss, toy.leaves)


@settings(deadline=None, max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(any),
    kept=st.integers(1, 7),
    state_grad=st.booleans(),
)
def test_a_loss_on_every_segment_goes_back_through_replay_as_through_full(lengths, kept, state_grad):
    toy = Toy(tuple(lengths), state_grad=state_grad)
    replayed, found = history_gradients(toy, Replay(Budget(segments=kept)))
    sums, wanted = history_gradients(toy, Full())
    assert torch.equal(replayed, sums)
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-13


@pytest.mark.parametrize("kind", [Checkpoint(), ReferenceReplay()])
def test_a_loss_on_every_segment_goes_back_through_the_other_kinds(kind):
    """With rows of different lengths, and one without a segment."""
    toy = Toy((5, 0, 3))
    values, found = history_gradients(toy, kind)
    sums, wanted = history_gradients(toy, Full())
    assert torch.equal(values, sums)
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-13


def test_a_history_is_the_state_after_each_segment():
    toy = Toy((4, 2))
    state = toy.recurrence().state
    for index, sums in enumerate(Full()(replace(toy.recurrence(), history=(1,)))[2]):
        given_one = (toy.inputs[index], toy.active[index])
        state = toy.step(index, (toy.weight,), (toy.shared,), given_one, state)
        assert torch.equal(sums, state[1])


@exact
def test_a_history_alone_may_have_the_loss(kind):
    toy = Toy((5, 3))
    found, wanted = (
        torch.autograd.grad(each(replace(toy.recurrence(), history=(0, 1)))[2][1].sum(), toy.leaves)
        for each in (kind, Full())
    )
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-13


def test_what_a_truncation_watches_is_cut_where_each_row_is():
    """A loss on all segments: a row's segments before its last k are constants, so any weight on them changes nothing."""
    toy = Toy((5, 3, 1))
    k = 2
    sums = Truncated(k)(replace(toy.recurrence(), history=(1,)))[2]
    assert torch.equal(sums, Full()(replace(toy.recurrence(), history=(1,)))[2])
    before = torch.arange(5)[:, None] < torch.tensor(toy.lengths) - k
    early = torch.autograd.grad((sums * before[..., None]).sum(), toy.leaves, retain_graph=True, allow_unused=True)
    assert all(x is None or not x.any() for x in early)
    late = torch.autograd.grad((sums * ~before[..., None]).sum(), toy.leaves)
    assert all(x.any() for x in late[:3])


@exact
def test_a_hook_on_a_parameter_sees_its_gradient_once(kind):
    toy = Toy((5,))
    wanted = toy.gradients(Full())[0]
    toy.weight.register_hook(lambda grad: grad * 0.5)
    assert relative(toy.gradients(kind)[0], 0.5 * wanted) < 1e-14


@pytest.mark.parametrize("kept", [1, 3])
def test_hooks_on_saved_tensors_change_nothing(kept):
    """What autograd unpacks is then another tensor than what was packed."""
    toy = Toy((5,))
    wanted = toy.gradients(Full())
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x.clone()):
        hidden, total = Replay(Budget(segments=kept))(toy.recurrence())
    found = torch.autograd.grad((hidden**2).sum() + total.sin().sum(), toy.leaves)
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-14


def test_other_data_given_to_a_parameter_later_is_not_computed_with():
    """As `load_state_dict(assign=True)` and `p.data =` give it, which no version counter notices."""
    toy = Toy((5,))
    wanted = toy.gradients(Full())
    hidden, total = Replay()(toy.recurrence())
    toy.weight.data = torch.zeros_like(toy.weight)
    found = torch.autograd.grad((hidden**2).sum() + total.sin().sum(), toy.leaves)
    for one, other in zip(found, wanted, strict=True):
        assert relative(one, other) < 1e-14


def test_changing_a_frozen_parameter_is_refused():
    toy = Toy((4,))
    toy.weight.requires_grad_(False)
    loss = Replay()(toy.recurrence())[0].sum()
    with torch.no_grad():
        toy.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
