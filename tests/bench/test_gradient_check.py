"""No method is reported whose gradients are wrong, however small the wrong tensor is."""

import math
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch

from rmaat.bench import gradient_check
from rmaat.bench.gradient_check import (
    DIFFERENCES,
    SMALLEST_SHARE,
    check_gradients,
    compare_gradients,
)
from rmaat.bench.methods import COMPARED, METHODS
from rmaat.bench.models import build
from rmaat.bench.shape import Shape
from rmaat.presets import MODELS

PACKAGED = [name for name in METHODS.names() if METHODS[name].package is not None]
TENSOR = "rmaat.first_memory"
OWN = [name for name in COMPARED if name not in PACKAGED]


@pytest.fixture
def building(monkeypatch):
    """Let a function (method, shape, device) -> step take the place of `build`."""
    return lambda function: monkeypatch.setattr(gradient_check, "build", function)


def with_factor(step, tensor, factor):
    """Return a step that multiplies one tensor's gradient by a factor."""

    def wrong(tokens):
        step(tokens)
        dict(step.model.named_parameters())[tensor].grad.mul_(factor)

    wrong.model, wrong.loss = step.model, step.loss
    return wrong


@pytest.mark.parametrize("bf16", [False, True])
def test_methods_of_this_project_pass(bf16):
    checks = [check_gradients(name, Shape(bf16=bf16), "cpu") for name in OWN]
    assert [check.refusal for check in checks] == [None] * len(OWN)
    assert {check.method: check.reference for check in checks} == {
        **dict.fromkeys(("full", "one_segment", "rmt", "transformer"), DIFFERENCES),
        "replay": "full",
        "checkpoint": "full",
        "rmt_replay": "rmt",
        "transformer_checkpoint": "transformer",
    }


@pytest.mark.parametrize("name", [name for name in MODELS.names() if name not in COMPARED])
def test_the_other_models_pass_by_their_names(name):
    check = check_gradients(name, Shape(), "cpu")
    assert check.refusal is None
    replayed = name in ("rlt_replay", "armt_replay", "rmaat", "rmaat_plus", "rmaat_causal", "rmaat_long")
    assert check.reference == (f"{name}, full backpropagation" if replayed else DIFFERENCES)


@pytest.mark.parametrize(
    ("factor", "message"),
    [(0.0, "wrong by 1 in"), (1.001, "wrong by 0.001 in"), (math.nan, "wrong by nan in")],
)
def test_one_wrong_tensor_is_refused_and_named(building, factor, message):
    def build_broken(method, *rest):
        step = build(method, *rest)
        return with_factor(step, TENSOR, factor) if method.backprop == "replay" else step

    building(build_broken)
    assert f"{message} {TENSOR}" in check_gradients("replay", Shape(), "cpu").refusal


def test_a_reference_is_compared_with_differences_of_its_loss(monkeypatch):
    """A wrong backward pass written by hand would be wrong in the method and in its reference."""
    monkeypatch.setattr("rmaat.attention.astro.slope_", lambda phi: phi)
    assert "mixer" in check_gradients("full", Shape(), "cpu").refusal
    assert check_gradients("rmt", Shape(), "cpu").refusal is None


@pytest.mark.parametrize("tensor", ["classifier.bias", "rmaat.encoder.embedding.tokens.weight"])
def test_a_hundredth_of_one_tensor_is_noticed_in_a_reference(building, tensor):
    building(lambda *arguments: with_factor(build(*arguments), tensor, 1.01))
    assert f"in {tensor}" in check_gradients("full", Shape(), "cpu").refusal


def test_a_compiled_reference_is_compared_with_itself_not_compiled(building):
    def build_miscompiled(method, shape, device):
        step = build(method, replace(shape, torch_compile=False), device)
        return with_factor(step, "classifier.bias", 1.01) if shape.torch_compile else step

    building(build_miscompiled)
    assert check_gradients("full", Shape(), "cpu").refusal is None
    refusal = check_gradients("full", Shape(torch_compile=True), "cpu").refusal
    assert "in classifier.bias" in refusal


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replay", "transformer_checkpoint"])
def test_compiled_methods_pass(name):
    assert check_gradients(name, Shape(torch_compile=True), "cpu").refusal is None


def test_dropout_that_is_not_replayed_is_refused(building):
    def build_other_dropout(method, shape, device):
        drop = 0.2 if method.backprop == "replay" else 0.1
        return build(method, replace(shape, hidden_dropout_prob=drop), device)

    building(build_other_dropout)
    assert "gradients wrong" in check_gradients("replay", Shape(), "cpu").refusal


def test_relative_errors_by_hand():
    right = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0]), "c": torch.tensor([1.0])}
    wrong = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([1e-9]), "c": torch.tensor([1.0])}
    result = compare_gradients(wrong, right)
    assert result.tensor == "a"
    assert result.error == pytest.approx(0.1)
    assert result.error_of_all == pytest.approx(0.5 / math.sqrt(26))
    del wrong["c"]
    assert compare_gradients(wrong, right)[:2] == (1, "c")
    extra = compare_gradients(right, wrong)
    assert extra.tensor == "c"
    assert extra.error == pytest.approx(1 / (SMALLEST_SHARE * math.hypot(3, 4.5)))


def test_a_failing_package_is_refused_and_a_failure_of_this_project_is_raised(building):
    building(Mock(side_effect=TypeError("no such\nargument")))
    with pytest.raises(TypeError, match="argument"):
        check_gradients("replay", Shape(), "cpu")
    refusal = check_gradients("memformer", Shape(), "cpu").refusal
    assert refusal == "failed: TypeError: no such argument"


@pytest.mark.parametrize("name", PACKAGED)
def test_packages(name):
    if not METHODS[name].is_installed():
        pytest.skip(f"needs {METHODS[name].package}")
    refusal = check_gradients(name, Shape(), "cpu").refusal
    if name == "recurrent_memory_transformer_pytorch":
        assert "gradients wrong" in refusal
    else:
        assert refusal is None
