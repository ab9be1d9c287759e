"""The way back over segments as an object handed to a model."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call

from rmaat import RmaatConfig, RmaatForSequenceClassification, RmaatModel
from rmaat.backprop import Backprop, Checkpoint, Full, Recurrence, Replay, Tensors, Truncated
from rmaat.backprop.reference import ReferenceReplay
from rmaat.budget import Budget
from rmaat.errors import UserError

BOUND = 1e-10


class Offloaded:
    """A user's own way back: full backpropagation with its activations in main memory."""

    recomputes = False

    def __call__(self, recurrence: Recurrence) -> Tensors:
        with save_on_cpu():
            return recurrence.run_all()


@dataclass
class Counted:
    """Another way back, which counts its calls."""

    backprop: Backprop
    calls: int = 0

    @property
    def recomputes(self) -> bool:
        return self.backprop.recomputes

    def __call__(self, recurrence: Recurrence) -> Tensors:
        self.calls += 1
        return self.backprop(recurrence)


def gradients(model, batch, backprop=None):
    """The loss, and each parameter's gradient, of all outputs and with equal dropout masks."""
    model.train().zero_grad()
    model.backprop = backprop
    torch.manual_seed(5)
    out = model(**batch, output_segment_logits=True)
    (out.loss + out.memory.sin().sum() + out.segment_logits.square().mean()).backward()
    return out.loss.item(), {name: p.grad for name, p in model.named_parameters()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, grad in wanted.items():
        assert grad.norm() > 0, name
        assert (found[name] - grad).norm() <= BOUND * grad.norm(), name


EXACT = [
    Offloaded(),
    Checkpoint(),
    Replay(),
    Replay(Budget(segments=2)),
    ReferenceReplay(),
    Truncated(4),
]
FORMS = [{}, {"readout": "running_mean", "associative_memory": True}]


@pytest.mark.parametrize("backprop", EXACT, ids=lambda backprop: type(backprop).__name__)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_way_back_that_is_handed_in_has_the_full_gradient(make_model, ragged, backprop, form):
    """Rows of four lengths, dropout, a loss on every segment."""
    model = make_model(retention_schedule="learned", **form)
    counted = Counted(backprop)
    wanted_loss, wanted = gradients(model, ragged, Full())
    loss, found = gradients(model, ragged, counted)
    assert counted.calls == 1
    assert loss == pytest.approx(wanted_loss, rel=1e-13)
    assert_equal(found, wanted)


@pytest.mark.parametrize("backprop", [Checkpoint(), ReferenceReplay()])
def test_weights_given_for_one_call_are_computed_with_again(make_model, ragged, backprop):
    """By the time of the backward pass the module has its own weights again."""
    found = []
    for each in (backprop, Full()):
        model = make_model(hidden_dropout_prob=0.0)
        model.backprop = each
        named = model.named_parameters()
        weights = {name: (1.2 * p.detach()).requires_grad_() for name, p in named}
        loss = functional_call(model, weights, (), dict(ragged)).loss
        grads = torch.autograd.grad(loss, list(weights.values()))
        found.append(dict(zip(weights, grads, strict=True)))
    assert_equal(*found)


@pytest.mark.parametrize(
    ("settings", "default"),
    [
        ({}, Replay()),
        ({"replay_budget": 3}, Replay(Budget(segments=3))),
        ({"replay_buffer": "cpu"}, Replay(buffer=torch.device("cpu"))),
        ({"memory_replay_backprop": False}, Full()),
        ({"memory_replay_backprop": False, "truncated_segments": 2}, Truncated(2)),
    ],
    ids=str,
)
def test_the_config_names_the_default_and_what_is_handed_in_wins(settings, default):
    model = RmaatModel(RmaatConfig(**settings))
    assert model.backprop == default
    model.backprop = Checkpoint()
    assert model.backprop == Checkpoint()
    model.backprop = None
    assert model.backprop == default


def test_a_classifiers_backprop_is_that_of_its_model():
    model = RmaatForSequenceClassification(RmaatConfig())
    assert model.backprop is model.rmaat.backprop
    model.backprop = Checkpoint()
    assert model.rmaat.backprop == Checkpoint()
    model.rmaat.backprop = Full()
    assert model.backprop == Full()


def test_what_is_handed_in_is_copied_but_not_stored(make_model, tmp_path):
    model = make_model()
    names = set(model.state_dict())
    model.backprop = Truncated(1)
    assert set(model.state_dict()) == names
    assert copy.deepcopy(model).backprop == Truncated(1)
    model.save_pretrained(tmp_path)
    loaded = RmaatForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.backprop == Replay()
    assert loaded.config.truncated_segments is None


@pytest.mark.parametrize("build", [RmaatModel, RmaatForSequenceClassification])
@pytest.mark.parametrize(
    ("backprop", "message"),
    [
        (torch.nn.Identity(), "is an nn.Module"),
        (Replay, r"is a class; assign an object, such as Replay\(\)"),
        ("replay", "cannot be called with a Recurrence"),
        (lambda recurrence: recurrence.run_all(), "has no attribute `recomputes`"),
    ],
)
def test_what_is_no_way_back_is_refused(build, backprop, message):
    model = build(RmaatConfig())
    with pytest.raises(UserError, match=message):
        model.backprop = backprop


@pytest.mark.parametrize(("backprop", "refused"), [(Checkpoint(), True), (Offloaded(), False)])
def test_a_written_buffer_is_refused_by_kinds_that_recompute(make_model, ragged, backprop, refused):
    model = make_model().train()
    model.backprop = backprop
    torch.nn.utils.parametrizations.spectral_norm(model.rmaat.encoder.blocks[0].expand)
    if refused:
        with pytest.raises(ValueError, match=r"buffer 'blocks\.0\.expand.*eval mode"):
            model(**ragged)
        # A sequence of one segment is computed once by every way back.
        ragged = {name: x[:, :8] if x.dim() == 2 else x for name, x in ragged.items()}
    model(**ragged).loss.backward()
