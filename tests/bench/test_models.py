"""The models behind the methods: how often each backpropagation computes a layer."""

import pytest

from rmaat.bench.methods import COMPARED, METHODS, chosen
from rmaat.bench.models import build
from rmaat.errors import UserError
from rmaat.presets import MODELS

LAYERS, SEGMENTS = 2, 4


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("full", SEGMENTS),
        ("replay", 2 * SEGMENTS - 1),
        ("checkpoint", 2 * SEGMENTS),
        ("one_segment", 1),
        ("rmt", SEGMENTS),
        ("rmt_replay", 2 * SEGMENTS - 1),
        ("transformer", 1),
        ("transformer_checkpoint", 2),
        ("rmaat_long", 2 * SEGMENTS - 1),
    ],
)
def test_layers_are_computed_as_often_as_the_method_says(tiny, name, calls):
    step, counted = build(METHODS[name], tiny, "cpu"), []
    for block in step.model.rmaat.encoder.layers():
        block.mixer_norm.register_forward_pre_hook(lambda module, inputs: counted.append(module))
    step(tiny.tokens)
    assert len(counted) == LAYERS * calls


def test_each_model_is_a_method_and_only_the_compared_ones_run_by_default():
    assert set(MODELS.names()) <= set(METHODS.names())
    assert METHODS["rmt"] == METHODS["rmt_replay"].reference
    run, absent = chosen(None)
    assert {*run, *absent} == set(COMPARED)
    assert chosen(["rlt", "full"]) == (("rlt", "full"), {})
    with pytest.raises(UserError, match="did you mean 'rlt'"):
        chosen(["rlt2"])
