import math
import re
import time
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rmaat.astrocyte import SCHEDULES, LatchWarning, MacroModel, log_increments, retention_factors
from rmaat.astrocyte import increments as increments_module
from rmaat.astrocyte.increments import RTOL, decreases, retention_increments, simulate_increments
from rmaat.astrocyte.memory import memory_shares
from rmaat.errors import UserError

SUMMING = ("ltp", "plateau")
FALLING = (*SUMMING, "streaming")


def test_the_factors_of_the_default_model():
    np.testing.assert_allclose(retention_factors(4), [0.3591, 0.2869, 0.2062, 0.1478], atol=5e-5)
    np.testing.assert_allclose(retention_factors(4, "plateau"), [0.3849, 0.2758, 0.1976, 0.1416], atol=5e-5)
    assert retention_factors(16, schedule="ltp").shape == (16,)


def check_schedule(factors):
    normal = factors >= np.finfo(np.float64).tiny
    assert np.isfinite(factors).all()
    assert (factors >= 0).all()
    assert (np.diff(factors)[normal[1:]] < 0).all()
    assert (np.diff(factors) <= 0).all()


@pytest.mark.parametrize("schedule", FALLING)
@pytest.mark.parametrize("total", [1, 2, 3, 16, 500, 4096, 100_000])
def test_any_number_of_segments(schedule, total):
    factors = retention_factors(total, schedule)
    assert factors.dtype == np.float64
    assert factors.shape == (total,)
    check_schedule(factors)
    if schedule in SUMMING:
        assert math.fsum(factors) == pytest.approx(1.0, abs=1e-14)


def test_a_simulated_model_gives_any_number_of_segments_in_milliseconds():
    retention_factors(2)
    before = retention_increments.cache_info().misses
    start = time.perf_counter()
    for total in range(4000, 4050):
        retention_factors(total)
    assert (time.perf_counter() - start) / 50 < 5e-3
    assert retention_increments.cache_info().misses == before


@pytest.mark.parametrize("schedule", SCHEDULES.names())
def test_factors_are_kept_and_cannot_be_written(schedule):
    factors = retention_factors(5, schedule)
    with pytest.raises(ValueError, match="read-only"):
        factors[0] = 2.0


def test_one_segment_keeps_everything():
    assert retention_factors(1).tolist() == retention_factors(1, "plateau").tolist() == [1.0]


def test_schedules_without_a_model_in_them():
    assert retention_factors(3, "none").tolist() == [1.0] * 3
    assert retention_factors(3, "constant").tolist() == [0.5] * 3
    assert retention_factors(2, "constant", constant=0.9).tolist() == [0.9] * 2


def test_streaming_is_ltp_for_endless_sequences_and_knows_no_total():
    streaming = retention_factors(12, "streaming")
    np.testing.assert_allclose(streaming, retention_factors(5000)[:12], rtol=1e-12)
    np.testing.assert_array_equal(retention_factors(30, "streaming")[:12], streaming)


def test_logs_of_the_increments_stay_finite_and_their_softmax_is_ltp():
    assert np.isfinite(log_increments(100_000)).all()
    logs = log_increments(16)
    np.testing.assert_allclose(np.exp(logs) / np.exp(logs).sum(), retention_factors(16), rtol=1e-14)


def test_the_increments_are_the_differences_of_the_simulated_long_term():
    model = MacroModel(tau_long=20.0, duty=0.4)
    long = model.simulate(cycles=8, samples_per_cycle=20).long_term.mean(axis=(1, 2))[::20]
    np.testing.assert_allclose(np.exp(log_increments(8, model)), np.diff(long), atol=1e-9)


def test_halving_the_tolerance_moves_no_factor_by_1e_6():
    for model in (MacroModel(), MacroModel(tau_long=8.0, coupling=0.8), MacroModel(tau_short=4.0, duty=0.2)):
        coarse = simulate_increments(model, rtol=RTOL).factors(16)
        fine = simulate_increments(model, rtol=RTOL / 2).factors(16)
        assert np.abs(coarse - fine).max() < 1e-6


def test_ltp_is_the_closed_form_where_every_cycle_drives_as_the_first_and_departs_where_not():
    at_rest_between_cycles = MacroModel(cycle=80.0, duty=0.1, tau_long=240.0)
    assert at_rest_between_cycles.decay_per_cycle == pytest.approx(MacroModel().decay_per_cycle)
    agreement = retention_factors(16, "ltp", at_rest_between_cycles) - retention_factors(16, "plateau")
    assert np.abs(agreement).max() < 1e-6
    departure = retention_factors(4) - retention_factors(4, "plateau")
    assert departure[0] == pytest.approx(-0.0258, abs=1e-4)
    assert (departure[1:] > 0).all()


parameters = st.builds(
    dict,
    tau_neuron=st.floats(0.05, 0.5),
    tau_synapse=st.floats(0.3, 3.0),
    tau_short=st.floats(0.5, 4.0),
    tau_long=st.floats(3.0, 90.0),
    decay_short=st.floats(1.6, 4.0),
    coupling=st.floats(0.0, 0.5),
    duty=st.floats(0.1, 1.0),
    amplitude=st.floats(0.2, 3.0),
    distance_scale=st.floats(0.1, 10.0),
    num_pre=st.integers(1, 4),
    num_post=st.integers(1, 4),
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(parameters, st.integers(1, 60))
def test_the_three_properties_hold_or_the_model_is_refused(values, total):
    model = MacroModel(**values)
    with patch.object(increments_module, "remedy", return_value="unsearched"):
        try:
            factors = retention_factors(total, "ltp", model)
        except UserError as refusal:
            assert "does not fall in cycle" in str(refusal)  # noqa: PT017
            assume(False)
    check_schedule(factors)
    assert math.fsum(factors) == pytest.approx(1.0, abs=1e-14)
    longer = retention_factors(total + 1, "ltp", model)
    assert (longer[:total] <= factors).all()
    assert longer[-1] < 1e-14 or (longer[:total] < factors).all()


@pytest.mark.parametrize(
    "values", [{"tau_long": 120.0}, pytest.param({"tau_synapse": 5.0, "tau_long": 50.0}, marks=pytest.mark.slow)]
)
def test_a_model_that_does_not_decrease_is_refused_with_the_nearest_change_that_mends_it(values):
    model = MacroModel(**values)
    with pytest.raises(UserError, match="does not fall in cycle 2") as caught:
        retention_factors(4, model=model)
    name, value, now = re.search(r"fixes it is (\w+) ([\d.]+) \(now ([\d.]+)\)", str(caught.value)).groups()
    assert float(now) == getattr(model, name)
    check_schedule(retention_factors(4, model=model.changed(name, float(value))))
    nearer = float(now) + 0.8 * (float(value) - float(now))
    assert not decreases(simulate_increments(model.changed(name, nearer)).head)


def test_a_model_beyond_remedy_is_refused_too():
    with pytest.raises(UserError, match="no change of one of"):
        retention_factors(4, model=MacroModel(tau_synapse=1e3, tau_long=1e4))


@pytest.mark.parametrize("total", [0, -3, 2.0, True, "4"])
def test_a_number_of_segments_that_is_none(total):
    with pytest.raises(UserError, match="whole number >= 1"):
        retention_factors(total)
    with pytest.raises(UserError, match="whole number >= 1"):
        log_increments(total)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"schedule": "lpt"}, "unknown retention schedule 'lpt'; did you mean 'ltp'"),
        ({"schedule": "constant", "constant": -0.1}, "constant"),
        ({"schedule": "constant", "constant": 1.5}, "constant"),
        ({"schedule": "constant", "constant": math.nan}, "constant"),
        ({"model": MacroModel(amplitude=0.0)}, "raise amplitude"),
        ({"model": MacroModel(amplitude=1e-6)}, "raise amplitude"),
        ({"model": MacroModel(tau_long=1e6, decay_long=1e-6, cycle=1e-2)}, "decay of the long-term process"),
        ({"schedule": "plateau", "model": MacroModel(tau_long=1e-6, decay_long=1e2)}, "decay of the long-term process"),
    ],
)
def test_bad_schedules_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        retention_factors(4, **options)


def test_a_synapse_that_never_settles_does_no_harm_once_its_effect_has():
    with pytest.warns(LatchWarning):
        model = MacroModel(decay_synapse=1e-3, tau_synapse=0.2)
    check_schedule(retention_factors(100, model=model))


def test_weak_drives_give_the_factors_of_the_limit():
    weak, weaker = (retention_factors(8, model=MacroModel(amplitude=amplitude)) for amplitude in (0.04, 0.02))
    np.testing.assert_allclose(weak, weaker, atol=2e-3)


def test_a_model_that_settles_too_slowly_is_refused(monkeypatch):
    monkeypatch.setattr(increments_module, "decreases", lambda head: True)
    with pytest.raises(UserError, match="do not become periodic within 3"):
        simulate_increments(MacroModel(tau_synapse=50.0), max_cycles=3)


@pytest.mark.parametrize("schedule", ["ltp", "none", "constant"])
def test_memory_shares_are_those_of_a_memory_behind_layer_norm(schedule):
    factors = retention_factors(4, schedule)
    generator = np.random.default_rng(0)
    written = generator.standard_normal((4, 400_000))
    memory = np.zeros(400_000)
    for factor, writing in zip(factors, written, strict=True):
        memory = memory + writing
        memory = factor * (memory - memory.mean()) / memory.std()
    share = np.array([np.corrcoef(memory, writing)[0, 1] ** 2 for writing in written])
    expected = memory_shares(factors)
    assert expected.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(share, expected, atol=5e-3)


def test_memory_shares_of_one_segment_and_of_no_retention():
    assert memory_shares(np.ones(1)).tolist() == [1.0]
    np.testing.assert_allclose(memory_shares(np.ones(4)), [0.125, 0.125, 0.25, 0.5])
