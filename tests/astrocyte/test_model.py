import json
import math
import warnings

import numpy as np
import pytest

from rmaat.astrocyte import LatchWarning, MacroModel
from rmaat.astrocyte.simulate import Layout, derivative
from rmaat.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        *(f"tau_{part}" for part in ("neuron", "synapse", "short", "long")),
        *(f"decay_{part}" for part in ("neuron", "synapse", "short", "long")),
        "distance_scale",
        "cycle",
    ],
)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, True, "1"])
def test_constants_that_must_be_positive(name, value):
    with pytest.raises(UserError, match=name):
        MacroModel(**{name: value})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"coupling": -0.1}, "coupling must be a number >= 0"),
        ({"coupling": math.nan}, "coupling must be a finite number"),
        ({"amplitude": -1.0}, "amplitude must be a number >= 0"),
        ({"input_short": math.inf}, "input_short must be a finite number"),
        ({"duty": 0.0}, "duty"),
        ({"duty": 1.5}, "duty"),
        ({"num_pre": 0}, "num_pre"),
        ({"num_pre": 100, "num_post": 100}, "10,000 synapses; at most 2,500"),
        ({"num_post": 2.5}, "num_post"),
        ({"psi": "tahn"}, "psi 'tahn' is not one of its values; did you mean 'tanh'"),
        ({"positions": ((0.0, 0.0),)}, "9 synapses"),
        ({"positions": ((0.0,), (1.0, 2.0))}, "positions"),
        ({"positions": (0.0,) * 9}, "positions"),
        ({"positions": ((0.0, math.nan),) * 9}, "not a finite number"),
    ],
)
def test_values_out_of_range_are_refused(values, said):
    with pytest.raises(UserError, match=said):
        MacroModel(**values)


def test_a_model_goes_through_json_and_is_a_key():
    model = MacroModel(tau_long=40, num_pre=1, num_post=2, positions=[[0, 0], [2, 1]], kappa="relu")
    again = MacroModel.from_dict(json.loads(json.dumps(model.to_dict())))
    assert again == model
    assert hash(again) == hash(model)
    assert {model: 1}[again] == 1
    assert again != MacroModel()


def test_an_unknown_parameter_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'tau_long'"):
        MacroModel.from_dict({"tau_lonk": 3.0})


def test_coupling_falls_with_distance_and_its_largest_row_sum_is_the_field():
    model = MacroModel(coupling=0.4, distance_scale=2.0)
    matrix = model.coupling_matrix
    assert matrix.sum(axis=1).max() == pytest.approx(0.4)
    assert np.array_equal(matrix, matrix.T)
    assert matrix[0, 1] / matrix[0, 0] == pytest.approx(math.exp(-0.5))
    assert matrix[0, 4] / matrix[0, 0] == pytest.approx(math.exp(-math.sqrt(2) / 2))


def fastest_growth(model):
    """The largest real part of the Jacobian of (s, p^s) at rest, by finite differences of the equations themselves."""
    at = Layout(model.num_pre, model.num_post)
    slope = derivative(model)
    still, step = np.zeros(model.num_neurons), 1e-6
    places = range(at.synapse.start, at.short_term.stop)
    columns = [slope(step * np.eye(at.size)[place], still)[places.start : places.stop] / step for place in places]
    return np.linalg.eigvals(np.array(columns).T).real.max()


@pytest.mark.parametrize(
    "constants",
    [{}, {"decay_short": 1.4, "decay_synapse": 2.0}, {"tau_short": 0.5, "tau_synapse": 3.0, "distance_scale": 0.3}],
)
def test_rest_loses_its_stability_exactly_at_the_coupling_bound(constants):
    bound = MacroModel(**constants).coupling_bound
    assert fastest_growth(MacroModel(**constants, coupling=bound * 0.999)) < 0
    with pytest.warns(LatchWarning, match="stays high without drive"):
        past = MacroModel(**constants, coupling=bound * 1.001)
    assert fastest_growth(past) > 0


def short_term_long_after_one_driven_cycle(coupling):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatchWarning)
        model = MacroModel(coupling=coupling)
    drive = {"drive": lambda time: float(time < 10.0), "breakpoints": [10.0]}
    return model.simulate(cycles=20, samples_per_cycle=4, **drive).short_term[-1]


def test_the_short_term_stays_up_past_the_bound_and_falls_below_it():
    bound = MacroModel().coupling_bound
    assert short_term_long_after_one_driven_cycle(0.8 * bound).max() < 1e-3
    assert short_term_long_after_one_driven_cycle(1.2 * bound).min() > 0.1


def test_the_default_is_below_the_bound_and_gamma_short_1_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MacroModel()
    with pytest.warns(LatchWarning):
        MacroModel(decay_short=1.0)


@pytest.mark.parametrize("psi", ["relu", "linear"])
def test_an_unbounded_psi_is_allowed_below_the_bound_and_refused_past_it(psi):
    bound = MacroModel(psi=psi).coupling_bound
    with pytest.raises(UserError, match="unbounded"):
        MacroModel(psi=psi, coupling=bound * 1.01)
