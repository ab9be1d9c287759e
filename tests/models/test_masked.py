"""The loss at masked positions, in float64, against hidden states that are read from outside."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.errors import UserError
from rmaat.models import RmaatForMaskedLM
from rmaat.models.masked import MaskedHead, draw_masked


@pytest.fixture
def masked(ragged):
    """About 40% of the positions of `ragged`, padding included."""
    return torch.rand(4, 32, generator=torch.Generator().manual_seed(2)) < 0.4


def hidden_states(model, **inputs):
    """The normalised outputs of the last layer, (B, T S, D), memory left out."""
    outputs = []
    hook = model.rmaat.encoder.final_norm.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return torch.cat([output[:, model.config.memory_positions :] for output in outputs], 1)


def with_a_token_for_masks(model):
    """The same model without a masked head, whose further token 16 is embedded as a masked position."""
    config = RmaatConfig(**{**model.config.to_dict(), "vocab_size": 17, "masked_head": False})
    other = RmaatForSequenceClassification(config).double().eval()
    weights = {k: v for k, v in model.state_dict().items() if "masked_head" not in k}
    embedding = "rmaat.encoder.embedding.tokens.weight"
    weights[embedding] = torch.cat([weights[embedding], model.rmaat.encoder.masked_head.vector[None]])
    other.load_state_dict(weights)
    return other


def test_the_loss_is_the_cross_entropy_of_hidden_tokens(make_model, ragged, masked):
    model = make_model(masked_head=True).eval()
    hidden = hidden_states(
        with_a_token_for_masks(model),
        input_ids=ragged["input_ids"].masked_fill(masked & ragged["attention_mask"].bool(), 16),
        attention_mask=ragged["attention_mask"],
    )
    logits = model.rmaat.encoder.masked_head.output(hidden)
    present = masked & ragged["attention_mask"].bool()
    expected = cross_entropy(logits[present], ragged["input_ids"][present])
    result = model(**ragged, masked=masked).masked_loss
    assert (result - expected).abs() < 1e-12 * expected
    assert present.sum() > 10


def test_what_stands_at_a_masked_position_changes_its_own_loss_alone(make_model, ragged, masked):
    model = make_model(masked_head=True).eval()
    changed = {**ragged, "input_ids": torch.where(masked, 15 - ragged["input_ids"], ragged["input_ids"])}
    one, other = (model(**batch, masked=masked) for batch in (ragged, changed))
    torch.testing.assert_close(one.logits, other.logits, rtol=1e-12, atol=0)
    assert (one.masked_loss - other.masked_loss).abs() > 0.01


def test_without_masked_positions_nothing_is_hidden(make_model, ragged):
    plain = make_model().eval()
    model = make_model(masked_head=True).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    none = torch.zeros(4, 32, dtype=torch.bool)
    for output in (model(**ragged), model(**ragged, masked=none)):
        torch.testing.assert_close(output.logits, plain(**ragged).logits, rtol=1e-12, atol=0)
    assert model(**ragged).masked_loss is None
    assert model(**ragged, masked=none).masked_loss == 0


@pytest.mark.parametrize("settings", [{}, {"readout": "running_mean", "associative_memory": True}], ids=str)
def test_replay_gives_the_gradient_of_full_backpropagation(make_model, ragged, masked, settings):
    gradients = []
    for replay in (True, False):
        model = make_model(masked_head=True, memory_replay_backprop=replay, **settings)
        torch.manual_seed(3)
        out = model(**ragged, masked=masked)
        (out.loss + 0.7 * out.masked_loss).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in gradients[1].items():
        assert (gradients[0][name] - grad).norm() <= 1e-12 * grad.norm(), name
    assert gradients[0]["rmaat.encoder.masked_head.vector"].norm() > 0


def test_two_calls_add_up_to_one(make_model, ragged, masked):
    classifier = make_model(masked_head=True).eval()
    model = RmaatForMaskedLM(classifier.config).double().eval()
    model.load_state_dict(classifier.state_dict(), strict=False)
    ids, hidden = ragged["input_ids"][:1], masked[:1]
    whole = model(ids, masked=hidden)
    first = model(ids[:, :16], masked=hidden[:, :16], total_segments=4)
    second = model(ids[:, 16:], masked=hidden[:, 16:], memory=first.memory, segment_offset=2, total_segments=4)
    torch.testing.assert_close(first.masked_loss + second.masked_loss, whole.masked_loss, rtol=1e-12, atol=0)
    assert whole.loss == whole.masked_loss[0, 0] / hidden.sum()


def test_values_have_the_mean_absolute_error_of_their_patches(make_model):
    model = make_model(masked_head=True, input_type="values", patch_size=2).eval()
    values = torch.randn(3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masked = torch.rand(3, 16, generator=torch.Generator().manual_seed(1)) < 0.5
    inputs = {"input_values": values, "masked": masked}
    predicted = model.rmaat.encoder.masked_head.output(hidden_states(model, **inputs))
    errors = (predicted - values.unflatten(1, (16, 2))).abs().mean(-1)
    assert (model(**inputs).masked_loss - errors[masked].mean()).abs() < 1e-12


def test_pairs_share_one_mean(make_model, ragged, masked):
    model = make_model(masked_head=True, two_towers=True).eval()
    other_ids = ragged["input_ids"].flip(0)
    other = {"other_input_ids": other_ids, "other_attention_mask": ragged["attention_mask"].flip(0)}
    inputs = {**ragged, **other, "masked": masked, "other_masked": masked.roll(1, 1)}
    both = model(**inputs).masked_loss
    towers = [
        model.rmaat(ragged["input_ids"], ragged["attention_mask"], masked=masked).masked_loss,
        model.rmaat(other_ids, other["other_attention_mask"], masked=masked.roll(1, 1)).masked_loss,
    ]
    loss, count = sum(towers).sum(0)
    torch.testing.assert_close(both, loss / count, rtol=1e-12, atol=0)


def test_a_compiled_graph_computes_all_positions_to_the_same_loss(monkeypatch):
    head = MaskedHead(RmaatConfig(vocab_size=9, hidden_size=8, masked_head=True)).double()
    torch.manual_seed(0)
    torch.nn.init.normal_(head.vector)
    hidden, ids = torch.randn(3, 5, 8, dtype=torch.float64), torch.randint(9, (3, 5))
    masked = torch.rand(3, 5) < 0.5
    wanted = head(hidden, ids, masked)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(head(hidden, ids, masked), wanted, rtol=1e-12, atol=0)


def test_positions_are_drawn_with_the_share_and_never_in_the_padding():
    torch.manual_seed(0)
    mask = torch.arange(4000) < torch.tensor([4000, 1000])[:, None]
    drawn = draw_masked(mask, 0.3)
    assert not drawn[~mask].any()
    assert 0.27 < drawn[mask].double().mean() < 0.33
    assert draw_masked(mask, 0.5, patch_size=4).shape == (2, 1000)


def test_refusals(make_model, ragged, masked):
    with pytest.raises(UserError, match="masked_head: true"):
        make_model()(**ragged, masked=masked)
    with pytest.raises(UserError, match=r"\(4, 32\)"):
        make_model(masked_head=True)(**ragged, masked=masked[:, :8])
    with pytest.raises(UserError, match="masked_head: true"):
        RmaatForMaskedLM(RmaatConfig())
