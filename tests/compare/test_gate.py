"""No method is reported whose gradients are wrong, however small the wrong tensor is."""

import math
from dataclasses import replace

import pytest
import torch

from rmaat.compare.gate import DIFFERENCES, compare_gradients, judge
from rmaat.compare.methods import METHODS, Method
from rmaat.compare.own import own
from rmaat.compare.shapes import Shape

OWN = [name for name in METHODS.names() if METHODS[name].package is None]


@pytest.fixture
def register(monkeypatch):
    def add(name: str, method: Method) -> None:
        monkeypatch.setitem(METHODS._entries, name, method)

    return add


def broken(tensor, factor, backprop="replay"):
    """A method with one tensor's gradient multiplied by a factor."""

    def build(shape, device):
        made = own(shape, device, "astro", backprop, False)

        def step(tokens):
            made.step(tokens)
            dict(made.model.named_parameters())[tensor].grad.mul_(factor)

        return replace(made, step=step)

    return Method("a mistake", build, "full")


@pytest.mark.parametrize("bf16", [False, True])
def test_own_methods_pass(bf16):
    verdicts = [judge(name, Shape(bf16=bf16), "cpu") for name in OWN]
    assert [verdict.refusal for verdict in verdicts] == [None] * len(OWN)
    assert {v.method: v.reference for v in verdicts} == {
        **dict.fromkeys(("full", "one_segment", "rmt", "transformer"), DIFFERENCES),
        "replay": "full",
        "checkpoint": "full",
        "rmt_replay": "rmt",
        "transformer_checkpoint": "transformer",
    }


@pytest.mark.parametrize(("factor", "told"), [(0.0, "wrong by 1 in"), (1.001, "wrong by 0.001 in"), (math.nan, "nan")])
def test_one_wrong_tensor_is_refused_and_named(register, factor, told):
    register("broken", broken("rmaat.first_memory", factor))
    refusal = judge("broken", Shape(), "cpu").refusal
    assert told in refusal
    assert "rmaat.first_memory" in refusal


def test_a_reference_is_held_against_what_its_loss_does(monkeypatch):
    """Written by hand, attention's backward pass would mislead whatever is compared with it."""
    monkeypatch.setattr("rmaat.attention.astro.slope_", lambda phi: phi)
    verdict = judge("full", Shape(), "cpu")
    assert "mixer" in verdict.refusal
    assert judge("rmt", Shape(), "cpu").refusal is None


@pytest.mark.parametrize("tensor", ["classifier.bias", "rmaat.encoder.embedding.tokens.weight"])
def test_a_hundredth_of_one_tensor_is_noticed_in_a_reference(register, tensor):
    register("own_reference", replace(broken(tensor, 1.01, "full"), reference=None))
    assert f"in {tensor}" in judge("own_reference", Shape(), "cpu").refusal


@pytest.mark.slow
def test_a_compiled_reference_is_held_against_itself_eager_too(register):
    def build(shape, device):
        return broken("classifier.bias", 1.01 if shape.torch_compile else 1, "full").build(
            replace(shape, torch_compile=False), device
        )

    register("miscompiled", Method("", build))
    assert judge("miscompiled", Shape(), "cpu").refusal is None
    assert "in classifier.bias" in judge("miscompiled", Shape(torch_compile=True), "cpu").refusal


def test_dropout_that_is_not_replayed_is_refused(register):
    def build(shape, device):
        return own(replace(shape, hidden_dropout_prob=0.2), device, "astro", "replay", False)

    register("other_dropout", Method("replay with other masks", build, "full"))
    assert "gradients wrong" in judge("other_dropout", Shape(), "cpu").refusal


def test_relative_errors_by_hand():
    wanted = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([0.0]), "c": torch.tensor([1.0])}
    found = {"a": torch.tensor([3.0, 4.5]), "b": torch.tensor([1e-9]), "c": torch.tensor([1.0])}
    departure = compare_gradients(found, wanted)
    assert departure.tensor == "a"
    assert departure.error == pytest.approx(0.1)
    assert departure.error_of_all == pytest.approx(0.5 / math.sqrt(26))
    del found["c"]
    assert compare_gradients(found, wanted).tensor == "c"
    assert compare_gradients(found, wanted).error == 1


def test_a_package_that_fails_is_refused_and_own_failures_are_raised(register):
    def build(shape, device):
        raise TypeError("no such\nargument")

    register("own_failure", Method("", build, "full"))
    with pytest.raises(TypeError, match="argument"):
        judge("own_failure", Shape(), "cpu")
    register("package_failure", Method("", build, "full", METHODS["memformer"].package))
    assert judge("package_failure", Shape(), "cpu").refusal == "failed: TypeError: no such argument"


@pytest.mark.parametrize("name", [name for name in METHODS.names() if METHODS[name].package is not None])
def test_packages(name):
    if not METHODS[name].package.is_installed():
        pytest.skip(f"needs {METHODS[name].package.requirement}")
    refusal = judge(name, Shape(), "cpu").refusal
    if name == "recurrent_memory_transformer_pytorch":
        assert "gradients wrong" in refusal
    else:
        assert refusal is None
