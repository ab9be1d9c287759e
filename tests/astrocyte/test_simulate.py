import math
import time

import numpy as np
import pytest

from rmaat.astrocyte import MacroModel
from rmaat.astrocyte import simulate as simulation_module
from rmaat.errors import UserError


@pytest.fixture(scope="module")
def default():
    return MacroModel().simulate(cycles=16)


def runge_kutta(model, cycles, step):
    """The equations written out pair by pair with classical fixed-step RK4; p^s and p^l at cycle ends."""
    pre, post = model.num_pre, model.num_post
    points = [(i, j) for i in range(pre) for j in range(post)]
    fall = [[math.exp(-math.dist(a, b) / model.distance_scale) for b in points] for a in points]
    largest = max(sum(row) for row in fall)
    coupling = np.array([[model.coupling * value / largest for value in row] for row in fall])

    def slope(state, b):
        x, y, s, short, long = state
        felt = np.tanh(short)
        calcium = np.maximum(np.tanh(s), 0)
        dy, ds = np.empty(post), np.empty((pre, post))
        for j in range(post):
            summed = sum(math.tanh(s[i, j]) * math.tanh(x[i]) for i in range(pre))
            dy[j] = (-model.decay_neuron * y[j] + summed + b) / model.tau_neuron
            for i in range(pre):
                ds[i, j] = -model.decay_synapse * s[i, j] + math.tanh(x[i]) * math.tanh(y[j]) + felt[i, j]
        spread = (coupling @ felt.ravel()).reshape(pre, post)
        return (
            (-model.decay_neuron * x + b) / model.tau_neuron,
            dy,
            ds / model.tau_synapse,
            (-model.decay_short * short + spread + calcium) / model.tau_short,
            (-model.decay_long * long + calcium) / model.tau_long,
        )

    def moved(state, by, change):
        return tuple(part + by * d for part, d in zip(state, change, strict=True))

    state = (np.zeros(pre), np.zeros(post), *(np.zeros((pre, post)) for _ in range(3)))
    ends = []
    half = round(model.cycle / 2 / step)
    for _ in range(cycles):
        for b in (model.amplitude, 0.0):
            for _ in range(half):
                k1 = slope(state, b)
                k2 = slope(moved(state, step / 2, k1), b)
                k3 = slope(moved(state, step / 2, k2), b)
                k4 = slope(moved(state, step, k3), b)
                total = [a + 2 * p + 2 * q + z for a, p, q, z in zip(k1, k2, k3, k4, strict=True)]
                state = moved(state, step / 6, total)
        ends.append((state[3], state[4]))
    return ends


def at(simulation, seconds):
    index = int(np.argmin(np.abs(simulation.time - seconds)))
    assert simulation.time[index] == pytest.approx(seconds, abs=1e-9)
    return index


def test_agreement_with_an_independent_fixed_step_solver():
    model = MacroModel(num_pre=2, num_post=3, tau_neuron=0.3, coupling=0.5)
    found = model.simulate(cycles=2)
    for cycle, (short, long) in enumerate(runge_kutta(model, 2, step=0.02), start=1):
        index = at(found, cycle * model.cycle)
        np.testing.assert_allclose(found.short_term[index], short, atol=1e-6)
        np.testing.assert_allclose(found.long_term[index], long, atol=1e-6)


def test_shapes_and_times(default):
    assert default.time.shape == (3201,)
    assert default.pre.shape == default.post.shape == (3201, 3)
    assert default.synapse.shape == default.short_term.shape == default.long_term.shape == (3201, 3, 3)
    assert default.drive.shape == (3201, 6)
    assert np.all(np.diff(default.time) > 0)
    index = at(default, 5.0)
    assert default.drive[index - 1, 0] == 1
    assert default.drive[index, 0] == 0


def test_grids_of_other_shapes():
    found = MacroModel(num_pre=1, num_post=4).simulate(cycles=1, samples_per_cycle=10)
    assert found.pre.shape == (11, 1)
    assert found.short_term.shape == (11, 1, 4)


def test_presynaptic_neurons_follow_their_closed_form(default):
    model = default.model
    shown = default.time < 5
    expected = 1 - np.exp(-default.time[shown] / model.tau_neuron)
    np.testing.assert_allclose(default.pre[shown, 0], expected, atol=1e-8)


def test_equal_distances_give_uniform_and_unequal_ones_distinct_short_terms(default):
    corners_of_a_simplex = tuple(map(tuple, np.eye(9).tolist()))
    uniform = MacroModel(positions=corners_of_a_simplex).simulate(cycles=3)
    assert np.ptp(uniform.short_term, axis=(1, 2)).max() < 1e-12
    peak = default.short_term[at(default, 155.0)]
    assert peak[1, 1] > peak[0, 1] + 5e-3 > peak[0, 0] + 1e-2


def test_the_long_term_saturates(default):
    long = default.long_term.mean(axis=(1, 2))[::200]
    gains = np.diff(long)
    assert np.all(np.diff(gains) < 0)
    assert gains[-1] < 0.01 * gains[0]
    assert long[-1] < 1


def test_the_short_term_falls_between_cycles_at_the_defaults(default):
    mean = default.short_term.mean(axis=(1, 2))
    last = mean[default.time >= 150]
    assert last.min() == pytest.approx(0.162, abs=0.01)
    assert last.max() == pytest.approx(0.441, abs=0.01)
    assert last[-1] < 0.5 * last.max()


@pytest.mark.parametrize("options", [{"drive": 0.0}, {"drive": lambda time: 0.0}, {"drive": np.zeros((4, 6))}])
def test_nothing_grows_without_drive(options):
    found = MacroModel().simulate(cycles=2, samples_per_cycle=10, **options)
    for values in (found.pre, found.post, found.synapse, found.short_term, found.long_term):
        assert not values.any()


def test_a_train_as_array_and_as_function_is_the_train():
    model = MacroModel()
    train = model.simulate(cycles=3)
    array = model.simulate(cycles=3, drive=[1, 0, 1, 0, 1, 0])
    function = model.simulate(cycles=3, drive=lambda t: float(t % 10 < 5), breakpoints=range(5, 30, 5))
    for other in (array, function):
        np.testing.assert_array_equal(other.time, train.time)
        np.testing.assert_allclose(other.long_term, train.long_term, atol=1e-12)
        np.testing.assert_array_equal(other.drive, train.drive)


def test_a_function_that_takes_the_other_side_at_its_jumps_changes_nothing():
    model = MacroModel()
    right = model.simulate(cycles=1, drive=lambda t: float(t < 5), breakpoints=[5.0])
    left = model.simulate(cycles=1, drive=lambda t: float(t <= 5), breakpoints=[5.0])
    np.testing.assert_array_equal(left.long_term, right.long_term)


def test_a_constant_drive_is_a_full_duty():
    constant = MacroModel().simulate(cycles=2, drive=1.0)
    full = MacroModel(duty=1.0).simulate(cycles=2)
    np.testing.assert_allclose(constant.long_term[-1], full.long_term[-1], atol=1e-10)


def test_a_drive_for_each_neuron_reaches_that_neuron():
    found = MacroModel(num_pre=2, num_post=1).simulate(cycles=1, drive=lambda t: [math.sin(t), 0.0, 0.0])
    assert found.pre[:, 0].any()
    assert not found.pre[:, 1].any()


def test_stiff_models_take_the_implicit_method_and_agree(monkeypatch):
    model = MacroModel(tau_neuron=0.02)
    implicit = model.simulate(cycles=1, samples_per_cycle=4).long_term
    monkeypatch.setattr(simulation_module, "STIFF_RATIO", 1e9)
    np.testing.assert_allclose(model.simulate(cycles=1, samples_per_cycle=4).long_term, implicit, atol=1e-8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cycles": 0}, "cycles"),
        ({"cycles": 1.5}, "cycles"),
        ({"samples_per_cycle": 0}, "samples_per_cycle"),
        ({"rtol": 0.0}, "rtol"),
        ({"drive": np.ones((4, 5))}, r"drive has shape \(4, 5\)"),
        ({"drive": np.ones((4, 6, 1))}, "drive has shape"),
        ({"drive": []}, "drive has shape"),
        ({"drive": "loud"}, "drive must be a number"),
        ({"drive": [1.0, math.nan]}, "not a finite number"),
        ({"drive": lambda t: math.nan}, "not a finite number"),
        ({"drive": lambda t: [1.0, 2.0]}, r"shape \(2,\)"),
        ({"breakpoints": [1.0]}, "breakpoints are allowed only"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        MacroModel().simulate(**{"cycles": 1, **options})


def test_a_solution_that_runs_away_is_refused():
    model = MacroModel(theta="linear", g="linear", phi="linear", amplitude=20.0)
    with pytest.raises(UserError, match="diverges"):
        model.simulate(cycles=16)


@pytest.mark.slow
def test_the_default_network_takes_at_most_a_second_and_256_synapses_twenty():
    MacroModel().simulate(cycles=1)
    for model, limit in ((MacroModel(), 1.0), (MacroModel(num_pre=16, num_post=16), 20.0)):
        start = time.process_time()
        model.simulate(cycles=16)
        assert time.process_time() - start < limit
