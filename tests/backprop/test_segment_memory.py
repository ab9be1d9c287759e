"""Segments kept alive within a budget: how many, what they hold, and that the gradient stays the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.in_flight import ATTENTION_TYPES, Case, measure
from torch.autograd.graph import saved_tensors_hooks

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.backprop import Full, Recurrence, Replay
from rmaat.backprop.replay import IN_FLIGHT
from rmaat.backprop.segment_memory import saved_bytes
from rmaat.budget import Budget

ROWS, WIDTH, TOTAL = 5, 32, 8


def recurrence(calls: list[tuple[int, bool]] | None = None) -> Recurrence:
    """state' = tanh(state W + x_t): each segment saves its state, for W, and its result, for tanh."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    weight = draw(WIDTH, WIDTH).requires_grad_()

    def step(index, parameters, shared, segment, state):
        if calls is not None:
            calls.append((index, torch.is_grad_enabled()))
        return (torch.tanh(state[0] @ parameters[0] + segment[0]),)

    return Recurrence(step, (weight,), (), (draw(TOTAL, ROWS, WIDTH),), (draw(ROWS, WIDTH),), (TOTAL,) * ROWS)


STATE = ROWS * WIDTH * 8
"""Bytes of a state, which is also what one segment newly keeps."""


@pytest.mark.parametrize("kept", [1, 2, 5, TOTAL, 100])
def test_as_many_segments_are_kept_as_asked_for(kept):
    calls: list[tuple[int, bool]] = []
    Replay(Budget(segments=kept))(recurrence(calls))[0].sum().backward()
    alive = min(kept, TOTAL)
    forward, again = calls[:TOTAL], calls[TOTAL:]
    assert forward == [(i, i >= TOTAL - alive) for i in range(TOTAL)]
    assert again == [(i, True) for i in reversed(range(TOTAL - alive))]


@pytest.mark.parametrize("kept", [1, 3, TOTAL - 1, TOTAL])
def test_the_gradient_is_that_of_full_backpropagation(kept):
    found, wanted = [], []
    for kind, grads in ((Replay(Budget(segments=kept), torch.device("cpu")), found), (Full(), wanted)):
        toy = recurrence()
        (kind(toy)[0] ** 2).sum().backward()
        grads.append(toy.parameters[0].grad)
    assert (found[0] - wanted[0]).norm() <= 1e-14 * wanted[0].norm()


@pytest.mark.parametrize("segments", [1, 2, 4, 6])
def test_a_size_in_bytes_keeps_what_fits_into_it(segments, monkeypatch):
    """A segment saves one new state; stored states count, and so does what is in flight."""
    monkeypatch.setattr("rmaat.machine.memory.ResidentMemory.used", lambda self: 0)
    calls: list[tuple[int, bool]] = []
    budget = int(STATE * (TOTAL + segments + IN_FLIGHT + 0.1))
    Replay(Budget(size=budget))(recurrence(calls))
    assert calls[:3] == [(0, True), (1, True), (1, True)], "the probe"
    assert sum(grad for _, grad in calls[3:]) == segments


@pytest.mark.parametrize("segments", [1, 3, 6])
def test_a_fraction_is_of_the_memory_that_was_free_at_first(segments, monkeypatch):
    monkeypatch.setattr("rmaat.machine.memory.ResidentMemory.used", lambda self: 0)
    wanted = int(STATE * (TOTAL + segments + IN_FLIGHT + 0.1))
    free = iter((4 * wanted, 0))
    monkeypatch.setattr("rmaat.machine.memory.ResidentMemory.free", lambda self: next(free))
    replay = Replay(Budget(fraction=0.25))
    for probed in (3, 0):
        calls: list[tuple[int, bool]] = []
        replay(recurrence(calls))
        assert sum(grad for _, grad in calls[probed:]) == segments


@pytest.mark.parametrize("attention_type", ATTENTION_TYPES)
@pytest.mark.parametrize(("layers", "batch"), [(2, 8), (1, 8), (1, 1)])
def test_what_is_in_flight_is_at_most_its_bound(attention_type, layers, batch):
    shares = measure(Case(attention_type, layers, batch, segment_length=64))
    assert 0 < shares["forward"] <= IN_FLIGHT
    assert 0 < shares["backward"] <= IN_FLIGHT


def test_the_stored_measurement_is_within_the_bound():
    path = Path(__file__).parents[2] / "results/in_flight/in_flight.json"
    rows = json.loads(path.read_text())["rows"]
    assert {row["attention_type"] for row in rows} == set(ATTENTION_TYPES)
    assert max(max(row["forward"], row["backward"]) for row in rows) <= IN_FLIGHT


def test_two_towers_have_half_of_the_budget_each():
    """Both calls' segments are alive at once."""
    for given, own in (("6MiB", Budget(size=3 << 20)), (0.5, Budget(fraction=0.25)), (4, Budget(segments=4))):
        model = RmaatForSequenceClassification(RmaatConfig(two_towers=True, replay_budget=given))
        assert model.rmaat.backprop == Replay(own)


def test_the_buffer_is_where_states_are_stored():
    """On the meta device they take no memory, and cannot be seen anywhere else."""
    (out,) = Replay(buffer=torch.device("meta"))(recurrence())
    *inputs, stored = out.grad_fn.saved_tensors
    assert stored.device.type == "meta"
    assert stored.shape == (TOTAL - 1, ROWS, WIDTH)
    assert all(x.device.type == "cpu" for x in inputs)


def test_the_probe_runs_once_for_a_shape(monkeypatch):
    monkeypatch.setattr("rmaat.machine.memory.ResidentMemory.used", lambda self: 0)
    calls: list[tuple[int, bool]] = []
    replay = Replay(Budget(size=1))
    replay(recurrence(calls))
    first = len(calls)
    replay(recurrence(calls))
    assert (first, len(calls) - first) == (TOTAL + 3, TOTAL)


def test_saved_bytes_are_those_that_hooks_see():
    torch.manual_seed(0)
    model = RmaatForSequenceClassification(
        RmaatConfig(hidden_size=16, num_hidden_layers=2, max_seq_len=64, num_segments=2, memory_replay_backprop=False)
    ).train()
    seen = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(torch.randint(0, 256, (3, 64)), labels=torch.tensor([0, 1, 0])).loss
    # Hooks are not shown the results that a node saves of its own, some numbers of the loss here.
    assert saved_bytes([loss]) == pytest.approx(sum(seen.values()), rel=1e-3)
    weights = [p.untyped_storage() for p in model.parameters()]
    own = sum(x.nbytes() for x in weights if x.data_ptr() in seen)
    assert saved_bytes([loss]) - saved_bytes([loss], model.parameters()) == own > 0


MEASURE = """
import json, resource, sys
import psutil, torch
from rmaat import RmaatConfig, RmaatForSequenceClassification
torch.set_num_threads(1)
torch.manual_seed(0)
config = RmaatConfig(hidden_size=64, num_hidden_layers=2, max_seq_len=8192, num_segments=32, num_labels=2,
                     retention_schedule="none", replay_budget=json.loads(sys.argv[1]))
model = RmaatForSequenceClassification(config).train()
ids = torch.randint(0, 256, (8, 8192))
model(ids[:1, :512], labels=torch.tensor([1])).loss.backward()
before = psutil.Process().memory_info().rss
for _ in range(2):
    model(ids, labels=torch.ones(8, dtype=torch.long)).loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
"""


def peak_bytes(budget: object) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(budget)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read as Linux gives it")
@pytest.mark.parametrize("mebibytes", [600, 800])
def test_a_budget_is_held_within_a_tenth(mebibytes):
    """Of segments of some 35 MiB; the process's own peak is the judge."""
    assert peak_bytes(f"{mebibytes}MiB") / 2**20 == pytest.approx(mebibytes, rel=0.1)
