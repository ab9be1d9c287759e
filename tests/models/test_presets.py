"""What every model of the comparisons must do, and what every attention type must do in segments."""

import re

import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.attention.registry import BUILT_IN
from rmaat.errors import UserError
from rmaat.models.size import TOLERANCE, count_parameters, match_parameters
from rmaat.presets import MODELS

every_model = pytest.mark.parametrize("name", MODELS.names())


@pytest.fixture
def make_preset(make_model):
    """A function of a preset's name and of further settings, giving a small model in float64."""
    return lambda name, **settings: make_model(**{**settings, **MODELS[name].fixed})


@every_model
@pytest.mark.parametrize("autocast", [False, True])
def test_output_and_gradients_are_finite_at_the_start(name, autocast, ragged):
    torch.manual_seed(0)
    settings = {"max_seq_len": 32, "num_segments": 4, "hidden_size": 16, "vocab_size": 16, **MODELS[name].fixed}
    model = RmaatForSequenceClassification(RmaatConfig(**settings, num_labels=5)).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = model(**ragged)
    out.loss.backward()
    assert torch.isfinite(out.logits).all()
    for parameter_name, parameter in model.named_parameters():
        if parameter.numel():
            assert torch.isfinite(parameter.grad).all(), parameter_name
            # Behind the values, which start at 0.
            starts_at_0 = ".associative." in parameter_name and ".value." not in parameter_name
            assert (parameter.grad.norm() == 0) == starts_at_0, parameter_name


@every_model
def test_a_padded_row_gets_what_it_gets_alone(make_preset, ragged, name):
    model = make_preset(name).eval()
    ids, mask = ragged["input_ids"], ragged["attention_mask"]
    batch = model(ids.where(mask == 1, -100), attention_mask=mask).logits
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = model(ids[row : row + 1, :length]).logits[0]
        assert (batch[row] - alone).norm() <= 1e-10 * alone.norm(), row


@every_model
def test_every_token_is_read(make_preset, name):
    """Changing the first, a middle or the last token changes the logits: no model is blind to a part of its input."""
    model = make_preset(name, readout="running_mean").eval()
    ids = torch.randint(0, 16, (1, 29), generator=torch.Generator().manual_seed(0))
    logits = model(ids).logits
    for place in (0, 13, 28):
        changed = ids.clone()
        changed[0, place] = (changed[0, place] + 1) % 16
        assert (model(changed).logits - logits).norm() > 1e-6, place


@every_model
def test_save_then_load_gives_the_same_logits(make_preset, tmp_path, name, monkeypatch):
    model = make_preset(name).eval()
    ids = torch.randint(0, 16, (2, 29), generator=torch.Generator().manual_seed(0))
    wanted = model(ids).logits
    model.save_pretrained(tmp_path)
    # What from_pretrained leaves unfilled holds whatever memory held, and what it draws anew is drawn from another seed.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.manual_seed(99)
    loaded = RmaatForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(loaded(ids).logits, wanted)


@pytest.mark.parametrize("name", [name for name in MODELS.names() if "num_segments" not in MODELS[name].fixed])
def test_recurrent_models_carry_memory(make_preset, name):
    model = make_preset(name).eval()
    ids = torch.randint(0, 16, (1, 16), generator=torch.Generator().manual_seed(0))
    first = model(ids[:, :8], total_segments=2)
    parts = model(
        ids[:, 8:],
        memory=first.memory,
        readout=first.readout,
        associations=first.associations,
        segment_offset=1,
        total_segments=2,
    )
    torch.testing.assert_close(parts.logits, model(ids).logits, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("attention_type", BUILT_IN)
def test_replay_equals_full_backpropagation(make_model, ragged, attention_type):
    found = []
    for replay in (True, False):
        model = make_model(
            attention_type=attention_type, memory_replay_backprop=replay, retention_schedule="none"
        ).train()
        torch.manual_seed(5)
        model(**ragged).loss.backward()
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, wanted in found[1].items():
        assert wanted.norm() > 0, name
        assert (found[0][name] - wanted).norm() <= 1e-10 * wanted.norm(), name


@every_model
@pytest.mark.parametrize("place", [{"max_seq_len": 1024, "num_segments": 4}, {"max_seq_len": 4096, "num_segments": 16}])
def test_parameters_are_matched_to_the_base(name, place):
    """At the default width and depth; the count is that of the model as built."""
    settings = {**place, "hidden_size": 128, "intermediate_size": 256, "vocab_size": 257, "num_labels": 10}
    base = count_parameters({**settings, **MODELS["rmaat"].fixed})
    settings = {**settings, **MODELS[name].fixed}
    settings.update(match_parameters(settings, base, MODELS[name].lighter))
    model = RmaatForSequenceClassification(RmaatConfig(**settings))
    found = sum(p.numel() for p in model.parameters())
    assert found == count_parameters(settings)
    assert abs(found - base) <= TOLERANCE * base
    # Matching what is matched changes nothing, so that a stored run config gives the same model.
    assert settings == {**settings, **match_parameters(settings, base, MODELS[name].lighter)}
    if name == "rmaat":
        assert settings["intermediate_size"] == 256


@pytest.mark.parametrize(
    ("name", "length", "target", "shorter_helps"),
    [
        ("luna", 192, 30_000, False),
        ("transformer", 1024, 5_000, False),
        ("astromorphic_transformer", 8192, 30_000, True),
    ],
)
def test_a_model_that_cannot_be_matched_is_refused_with_a_remedy_that_helps(name, length, target, shorter_helps):
    shape = {"max_seq_len": length, "hidden_size": 32, "num_attention_heads": 2, "num_labels": 2}
    settings = {**shape, **MODELS[name].fixed}
    lighter = MODELS[name].lighter
    with pytest.raises(UserError, match="even with intermediate_size 1") as refused:
        match_parameters(settings, target, lighter)
    assert ("lower max_seq_len" in str(refused.value)) is shorter_helps
    (enough,) = re.findall(r"raise match_parameters to ([\d,]+) or more, or leave it out", str(refused.value))
    match_parameters(settings, int(enough.replace(",", "")), lighter)
    shorter = {**settings, "max_seq_len": 64}
    if shorter_helps:
        match_parameters(shorter, target, lighter)
    else:
        with pytest.raises(UserError):
            match_parameters(shorter, target, lighter)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"hebbian_astro": False}, "basis"),
        ({"attention_type": "softmax"}, "basis"),
        ({"basis_stride": 3}, None),
        ({"presynaptic_plasticity": False}, None),
        ({"hebbian_sigmoid": True}, None),
        ({"positional_encoding": False}, None),
        ({"calcium_exponent": 1.0}, None),
        ({"hebbian_astro": False, "presynaptic_plasticity": False, "positional_encoding": False}, "basis"),
    ],
    ids=str,
)
def test_every_switch_changes_the_model_and_keeps_replay_exact(make_model, ragged, settings, missing):
    plain_model = make_model().train()
    torch.manual_seed(5)
    plain = plain_model(**ragged).logits
    found = []
    for replay in (True, False):
        model = make_model(memory_replay_backprop=replay, **settings).train()
        torch.manual_seed(5)
        out = model(**ragged)
        out.loss.backward()
        assert (out.logits - plain).norm() > 1e-6
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert any("basis" in name for name in found[0]) == (missing is None)
    for name, wanted in found[1].items():
        assert (found[0][name] - wanted).norm() <= 1e-10 * wanted.norm(), name


def test_without_positions_and_astrocyte_the_order_of_tokens_is_lost(make_model):
    settings = {"positional_encoding": False, "hebbian_astro": False}
    ids = torch.randint(0, 16, (1, 8), generator=torch.Generator().manual_seed(0))
    for given, same in ((settings, True), ({}, False), ({"positional_encoding": False}, False)):
        model = make_model(**given).eval()
        assert torch.allclose(model(ids).logits, model(ids.flip(1)).logits, rtol=1e-10) == same, given


@pytest.mark.slow
@every_model
def test_it_learns_64_examples_by_heart(name):
    torch.manual_seed(0)
    settings = {"max_seq_len": 32, "num_segments": 2, "hidden_size": 32, "vocab_size": 16, "num_labels": 4}
    settings.update(intermediate_size=64, hidden_dropout_prob=0.0, num_landmarks=8, linformer_size=16)
    model = RmaatForSequenceClassification(RmaatConfig(**{**settings, **MODELS[name].fixed})).train()
    mask = (torch.arange(32) < torch.randint(20, 33, (64, 1))).long()
    ids, labels = torch.randint(0, 16, (64, 32)) * mask, torch.randint(0, 4, (64,))
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(300):
        out = model(ids, attention_mask=mask, labels=labels)
        if (out.logits.argmax(1) == labels).all():
            return
        optimiser.zero_grad()
        out.loss.backward()
        optimiser.step()
    pytest.fail(f"{int((out.logits.argmax(1) == labels).sum())} of 64 after 300 steps")
