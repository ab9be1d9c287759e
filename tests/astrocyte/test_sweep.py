import numpy as np
import pytest

from rmaat.astrocyte import MacroModel, retention_factors
from rmaat.astrocyte.sweep import parse_sweep, sweep, sweep_point
from rmaat.errors import UserError


def test_a_sweep_is_evenly_spaced():
    name, values = parse_sweep("tau_long=10:120:12")
    assert name == "tau_long"
    np.testing.assert_allclose(values, np.arange(10, 121, 10))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tau_long", "name=start:stop:count"),
        ("tau_long=10:20", "name=start:stop:count"),
        ("tau_long=10:20:0", "count at least 1"),
        ("tau_long=10:nan:3", "finite"),
        ("tau_lonk=10:20:3", "did you mean 'tau_long'"),
        ("psi=1:2:3", "cannot sweep 'psi'"),
    ],
)
def test_sweeps_that_cannot_be_read(text, said):
    with pytest.raises(UserError, match=said):
        parse_sweep(text)


def test_points_hold_the_factors_or_the_refusal():
    model = MacroModel()
    point = sweep_point(model, "tau_long", 20.0)
    np.testing.assert_array_equal(point.increments.factors(8), retention_factors(8, model=MacroModel(tau_long=20.0)))
    assert "does not fall in cycle 2" in sweep_point(model, "tau_long", 120.0).refusal
    assert "tau_long must be a number" in sweep_point(model, "tau_long", -1.0).refusal


def test_processes_keep_the_order_and_report_each_point():
    calls = []
    values = np.array([120.0, 5.0, 20.0])
    points = sweep(MacroModel(num_pre=1, num_post=1), "tau_long", values, lambda: calls.append(1), workers=2)
    assert [point.value for point in points] == values.tolist()
    assert len(calls) == 3
    assert points[1].increments.decay == pytest.approx(2.0)


def test_a_sweep_without_any_factors_is_refused():
    with pytest.raises(UserError, match="no value of tau_long"):
        sweep(MacroModel(), "tau_long", np.array([-1.0]), lambda: None)
