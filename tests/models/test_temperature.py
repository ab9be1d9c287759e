"""The temperature by length: against NumPy, in whole calls, streams, segment logits and exports."""

import numpy as np
import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.models.export import SegmentStep
from rmaat.models.temperature import temperature_at

KNOTS = [[3.0, 4.0], [10.0, 0.5], [24.0, 2.0]]


def reference(tokens):
    places, temperatures = np.array(KNOTS).T
    return np.exp(np.interp(np.log(np.maximum(tokens, 1)), np.log(places), np.log(temperatures)))


def test_the_temperature_is_interpolated_between_knots():
    tokens = np.arange(40).reshape(2, 20)
    torch.testing.assert_close(
        temperature_at(torch.from_numpy(tokens), KNOTS).double(), torch.from_numpy(reference(tokens)), rtol=1e-5, atol=0
    )
    assert temperature_at(torch.tensor(7), [[5, 1.5]]).item() == pytest.approx(1.5)


FORMS = [
    {"readout": "running_mean", "ngram_size": 2},
    {"readout": "mean"},
    {"readout": "running_mean", "input_type": "values", "patch_size": 4},
    {"readout": "last", "two_towers": True},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_logits_are_divided_by_the_temperature_of_the_tokens_read(make_model, ragged, form):
    model = make_model(**form).eval()
    inputs = {name: x for name, x in ragged.items() if name != "labels"}
    inputs["attention_mask"][3, :4] = 1
    longest = inputs["attention_mask"].sum(1)
    if form.get("input_type") == "values":
        mask = (torch.arange(32) < torch.tensor([32, 20, 8, 4])[:, None]).long()
        inputs = {"input_values": inputs["input_ids"].double() / 8, "attention_mask": mask}
        longest = mask.sum(1)
    if form.get("two_towers"):
        other = (torch.arange(32) < torch.tensor([3, 30, 8, 9])[:, None]).long()
        inputs |= {"other_input_ids": inputs["input_ids"].flip(0), "other_attention_mask": other}
        longest = torch.maximum(longest, other.sum(1))
    segments = not form.get("two_towers")
    before = model(**inputs, output_segment_logits=segments)
    model.config.temperatures = KNOTS
    after = model(**inputs, output_segment_logits=segments)
    expected = before.logits / torch.from_numpy(reference(longest.numpy()))[:, None]
    torch.testing.assert_close(after.logits, expected, rtol=1e-5, atol=1e-8)
    if segments:
        ends = np.minimum(8 * np.arange(1, 5), longest.numpy()[:, None])
        expected = before.segment_logits / torch.from_numpy(reference(ends))[..., None]
        torch.testing.assert_close(after.segment_logits, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("form", FORMS[:3], ids=str)
def test_a_stream_counts_the_tokens_of_all_calls(make_model, form):
    model = make_model(**form, retention_schedule="streaming", temperatures=KNOTS).eval()
    ids = torch.randint(16, (2, 28), generator=torch.Generator().manual_seed(2))
    name, ids = ("input_values", ids.double() / 8) if form.get("input_type") == "values" else ("input_ids", ids)
    whole = model(**{name: ids}, output_segment_logits=True)
    first = model(**{name: ids[:, :16]}, total_segments=4)
    torch.testing.assert_close(first.logits, whole.segment_logits[:, 1])
    state = {"memory": first.memory, "readout": first.readout, "associations": first.associations}
    for offset in (2, torch.tensor([2, 2])):
        second = model(**{name: ids[:, 16:]}, **state, segment_offset=offset, output_segment_logits=True)
        torch.testing.assert_close(second.logits, whole.logits)
        torch.testing.assert_close(second.segment_logits, whole.segment_logits[:, 2:])


def test_a_row_that_ended_keeps_its_temperature(make_model, ragged):
    model = make_model(readout="running_mean", retention_schedule="streaming", temperatures=KNOTS).eval()
    mask = ragged["attention_mask"]
    whole = model(ragged["input_ids"], mask)
    first = model(ragged["input_ids"][:, :24], mask[:, :24])
    rest = model(
        ragged["input_ids"][:, 24:], mask[:, 24:], memory=first.memory, readout=first.readout, segment_offset=3
    )
    torch.testing.assert_close(rest.logits, whole.logits)


def test_exported_steps_have_it_too(make_model):
    model = make_model(readout="running_mean", retention_schedule="streaming", temperatures=KNOTS).eval()
    step = SegmentStep(model)
    ids = torch.randint(16, (2, 13), generator=torch.Generator().manual_seed(3))
    state, factors = step.initial_state(2), torch.ones(2, 1, dtype=torch.float64)
    padded = torch.nn.functional.pad(ids, (0, 3))
    for start, length in ((0, 8), (8, 5)):
        part = (padded[:, start : start + 8], torch.full((2,), length))
        logits, *state = step(*part, factors, *state)
    model.config.temperatures = None
    plain = step.model.logits_of(state[1])
    torch.testing.assert_close(logits, plain / float(reference(13)), rtol=1e-5, atol=1e-8)
    model.config.temperatures = KNOTS
    program = torch.export.export(model, (ids,), strict=False).module()
    torch.testing.assert_close(program(ids).logits, model(ids).logits)
    with pytest.raises(ValueError, match="needs readout 'running_mean', which counts the tokens"):
        SegmentStep(make_model(readout="mean", temperatures=KNOTS))
    SegmentStep(make_model(readout="mean", temperatures=KNOTS[:1]))


def test_the_config_stores_the_knots(make_model, tmp_path):
    model = make_model(temperatures=KNOTS).float().eval()
    model.save_pretrained(tmp_path)
    loaded = RmaatForSequenceClassification.from_pretrained(tmp_path).eval()
    assert loaded.config.temperatures == KNOTS
    ids = torch.arange(12)[None]
    torch.testing.assert_close(model(ids).logits, loaded(ids).logits)


@pytest.mark.parametrize(
    "knots", [[], [[1.0]], [[0, 1.0]], [[4, -1.0]], [[4, 1.0], [4, 2.0]], {"4": 1.0}, [["4", 1.0]], [[4, float("nan")]]]
)
def test_mistakes_in_the_config(knots):
    with pytest.raises(ValueError, match="temperature"):
        RmaatConfig(temperatures=knots)
