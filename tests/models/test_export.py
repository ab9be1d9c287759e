"""`torch.export` and ONNX of a model with one length and of a segment step."""

import pytest
import torch

from rmaat.astrocyte import retention_factors
from rmaat.models.export import SegmentStep

FORMS = [
    {},
    {"associative_memory": True, "attention_type": "softmax", "readout": "running_mean"},
    {"norm_first": False, "memory_layout": "read_write", "classifier_hidden_size": 8, "masked_head": True},
]


@pytest.fixture
def ids():
    return torch.randint(0, 16, (2, 29), generator=torch.Generator().manual_seed(0))


def step_inputs(step, ids, segment=0, state=None):
    """The inputs of one of the four segments of `ids`, the last of which has 5 tokens."""
    tokens = torch.nn.functional.pad(ids, (0, 3))[:, 8 * segment : 8 * segment + 8]
    length = torch.full((2,), 8 if segment < 3 else 5)
    factor = torch.full((2, 1), retention_factors(4, "ltp")[segment], dtype=step.model.dtype)
    return (tokens, length, factor, *(step.initial_state(2) if state is None else state))


def logits_of_steps(step, call, ids):
    """Run all segments by `call`; return the last logits."""
    state = None
    for segment in range(4):
        logits, *state = call(*step_inputs(step, ids, segment, state))
    return logits


@pytest.mark.parametrize(
    "form", [FORMS[0], *(pytest.param(form, marks=pytest.mark.slow) for form in FORMS[1:])], ids=str
)
def test_exported_programs_give_equal_logits(make_model, ids, form):
    model = make_model(**form).eval()
    wanted = model(ids).logits
    program = torch.export.export(model, (ids,), strict=False).module()
    torch.testing.assert_close(program(ids).logits, wanted, rtol=1e-12, atol=1e-14)
    other = 15 - ids
    torch.testing.assert_close(program(other).logits, model(other).logits, rtol=1e-12, atol=1e-14)
    step = SegmentStep(model)
    torch.testing.assert_close(logits_of_steps(step, step, ids), wanted, rtol=1e-12, atol=1e-14)
    exported = torch.export.export(step, step_inputs(step, ids), strict=False).module()
    torch.testing.assert_close(logits_of_steps(step, exported, other), model(other).logits, rtol=1e-12, atol=1e-14)
    # The export leaves nothing without values in a cache.
    assert torch.equal(model(ids).logits, wanted)


def test_what_cannot_be_exported_is_refused(make_model, ids):
    model = make_model().eval()
    with pytest.raises(Exception, match="one length for all rows; leave out attention_mask"):
        torch.export.export(model, (ids, torch.ones_like(ids)), strict=False)
    for settings in ({"two_towers": True}, {"input_type": "values"}):
        with pytest.raises(ValueError, match="two_towers: false"):
            SegmentStep(make_model(**settings))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS[:2], ids=str)
def test_onnx_gives_equal_logits(make_model, ids, tmp_path, form):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = make_model(**form).float().eval()
    wanted = model(ids).logits.detach()
    step = SegmentStep(model)
    calls = {}
    for name, module, arguments in (("model", model, (ids,)), ("step", step, step_inputs(step, ids))):
        torch.onnx.export(module, arguments, str(tmp_path / name), dynamo=True, verbose=False)
        calls[name] = runtime.InferenceSession(tmp_path / name)

    def call(name, *tensors):
        names = [x.name for x in calls[name].get_inputs()]
        feed = {key: x.detach().numpy() for key, x in zip(names, tensors, strict=True)}
        return [torch.from_numpy(x) for x in calls[name].run(None, feed)]

    torch.testing.assert_close(call("model", ids)[0], wanted, rtol=1e-5, atol=1e-5)
    stepped = logits_of_steps(step, lambda *tensors: call("step", *tensors), ids)
    torch.testing.assert_close(stepped, wanted, rtol=1e-5, atol=1e-5)
