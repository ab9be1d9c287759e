"""Several labels and numbers: losses against transformers and loops, replay, streams, mistakes."""

import math

import pytest
import torch
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.backprop import Full, Replay
from rmaat.models import RmaatForTokenClassification
from rmaat.models.export import SegmentStep
from rmaat.training.label_loss import LabelLoss

MULTI, NUMBER, SINGLE = "multi_label_classification", "regression", "single_label_classification"
FORMS = [
    {"problem_type": MULTI, "num_labels": 5},
    {"problem_type": MULTI, "num_labels": 1},
    {"problem_type": NUMBER, "num_labels": 1},
    {"problem_type": NUMBER, "num_labels": 3},
]


def labels_of(form, batch=4):
    generator = torch.Generator().manual_seed(3)
    shape = (batch, form["num_labels"])
    if form["problem_type"] == MULTI:
        return torch.randint(0, 2, shape, generator=generator).double()
    numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
    return numbers[:, 0] if form["num_labels"] == 1 else numbers


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_loss_is_that_of_transformers_and_of_a_loop(make_model, ragged, form):
    model, labels = make_model(**form).eval(), labels_of(form)
    out = model(ragged["input_ids"], ragged["attention_mask"], labels=labels)
    theirs = ForSequenceClassificationLoss(labels, out.logits, model.config)
    torch.testing.assert_close(out.loss, theirs)
    total = 0.0
    for logits, label in zip(out.logits.tolist(), labels.reshape(4, -1).tolist(), strict=True):
        for z, y in zip(logits, label, strict=True):
            if form["problem_type"] == MULTI:
                p = 1 / (1 + math.exp(-z))
                total -= y * math.log(p) + (1 - y) * math.log(1 - p)
            else:
                total += (z - y) ** 2
    assert out.loss.item() == pytest.approx(total / labels.numel(), rel=1e-12)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(
    "more", [{}, {"readout": "running_mean", "ngram_size": 2, "hidden_dropout_prob": 0.1}], ids=str
)
def test_replay_gives_the_gradients_of_full_backpropagation(make_model, ragged, form, more):
    """With a loss after every segment, which reaches the states of all segments."""
    gradients, losses = [], []
    scale = {"label_mean": 3.0, "label_std": 2.0} if form["problem_type"] == NUMBER else {}
    for backprop in (Full(), Replay()):
        model = make_model(**form, **more, **scale).train()
        model.backprop = backprop
        torch.manual_seed(5)
        inputs = {**{name: x for name, x in ragged.items() if name != "labels"}, "labels": labels_of(form)}
        out = model(**inputs, output_segment_logits=True)
        weighted = LabelLoss(
            form["problem_type"], label_std=model.config.label_std, segment_weight=0.5, tokens_per_segment=8
        )
        loss = out.loss + weighted(out, inputs)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    assert gradients[0].keys() == gradients[1].keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_numbers_are_in_the_unit_of_the_labels(make_model, ragged):
    """Mean and deviation change the unit, and not what is learned."""
    form = {"problem_type": NUMBER, "num_labels": 1, "readout": "running_mean", "ngram_size": 1}
    plain = make_model(**form).eval()
    scaled = make_model(**form, label_mean=40.0, label_std=5.0).eval()
    inputs = (ragged["input_ids"], ragged["attention_mask"])
    labels = labels_of(form)
    one = plain(*inputs, labels=labels, output_segment_logits=True)
    other = scaled(*inputs, labels=5 * labels + 40, output_segment_logits=True)
    torch.testing.assert_close(other.logits, 5 * one.logits + 40)
    torch.testing.assert_close(other.segment_logits, 5 * one.segment_logits + 40)
    torch.testing.assert_close(other.loss, one.loss)
    torch.testing.assert_close(scaled.logits_of(other.readout), other.logits)
    low = scaled.bfloat16()(*inputs)
    assert low.logits.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS[::2], ids=str)
def test_a_stream_gives_the_outputs_of_one_call(make_model, form):
    scale = {"label_mean": 3.0, "label_std": 2.0} if form["problem_type"] == NUMBER else {}
    more = {"readout": "running_mean", "ngram_size": 2, "retention_schedule": "streaming"}
    model = make_model(**form, **scale, **more).eval()
    ids = torch.randint(16, (2, 28), generator=torch.Generator().manual_seed(2))
    whole = model(ids)
    first = model(ids[:, :16], total_segments=4)
    rest = model(ids[:, 16:], memory=first.memory, readout=first.readout, segment_offset=2)
    torch.testing.assert_close(rest.logits, whole.logits)
    step = SegmentStep(model)
    state = step.initial_state(2)
    for start in range(0, 28, 8):
        part = torch.nn.functional.pad(ids[:, start : start + 8], (0, 8 - len(ids[0, start : start + 8])))
        factor = torch.from_numpy(_streaming_factors().copy())[start // 8].expand(2, 1)
        logits, *state = step(part, torch.full((2,), min(8, 28 - start)), factor, *state)
    torch.testing.assert_close(logits, whole.logits)


def _streaming_factors():
    from rmaat.astrocyte import retention_factors

    return retention_factors(4, "streaming")


def test_the_type_is_never_taken_from_the_labels():
    settings = {"vocab_size": 16, "hidden_size": 16, "num_attention_heads": 2, "max_seq_len": 16, "num_segments": 2}
    model = RmaatForSequenceClassification(RmaatConfig(**settings, num_labels=3))
    ids = torch.arange(8)[None]
    with pytest.raises(ValueError, match=r"must be \(1,\) integers.*need a config with problem_type"):
        model(ids, labels=torch.tensor([[0.0, 1, 0]]))
    assert model.config.problem_type is None
    # One number is the only meaning of one label, as in transformers.
    one = RmaatForSequenceClassification(RmaatConfig(**settings, num_labels=1)).eval()
    assert one.config.problem == NUMBER
    torch.testing.assert_close(one(ids, labels=torch.tensor([2])).loss, (one(ids).logits[0, 0] - 2).square())


@pytest.mark.parametrize(
    ("form", "labels", "said"),
    [
        (FORMS[0], torch.zeros(4), r"must be \(4, 5\) ones and zeros"),
        (FORMS[0], torch.full((4, 5), 2), "from 0 to 1"),
        (FORMS[0], torch.full((4, 5), math.nan), "from 0 to 1"),
        (FORMS[2], torch.zeros(3), r"must be \(4,\) numbers"),
        (FORMS[3], torch.zeros(4), r"must be \(4, 3\) numbers"),
        (FORMS[2], torch.full((4,), math.inf), "must be finite"),
    ],
)
def test_wrong_labels_are_refused(make_model, ragged, form, labels, said):
    with pytest.raises(ValueError, match=said):
        make_model(**form)(ragged["input_ids"], ragged["attention_mask"], labels=labels)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"problem_type": "ranking"}, "problem_type"),
        ({"problem_type": SINGLE, "num_labels": 1}, "num_labels"),
        ({"problem_type": NUMBER, "num_labels": 1, "label_std": 0.0}, "label_std must be a number above 0"),
        ({"problem_type": NUMBER, "num_labels": 1, "temperatures": [[4.0, 1.0]]}, "temperatures are for classes"),
    ],
)
def test_wrong_configs_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RmaatConfig(**settings)


def test_ids_that_follow_tokens_need_a_causal_model():
    with pytest.raises(ValueError, match="labels whole sequences; 'next_token_prediction' needs RmaatForCausalLM"):
        RmaatForSequenceClassification(RmaatConfig(problem_type="next_token_prediction"))


def test_tokens_have_one_class_each():
    with pytest.raises(ValueError, match="one class for each token, not 'regression'"):
        RmaatForTokenClassification(RmaatConfig(num_labels=1))


def test_configs_are_stored(make_model, tmp_path):
    model = make_model(problem_type=NUMBER, num_labels=1, label_mean=3, label_std=2).float().eval()
    model.save_pretrained(tmp_path)
    loaded = RmaatForSequenceClassification.from_pretrained(tmp_path).eval()
    assert (loaded.config.problem_type, loaded.config.label_mean, loaded.config.label_std) == (NUMBER, 3.0, 2.0)
    ids = torch.arange(12)[None]
    torch.testing.assert_close(model(ids).logits, loaded(ids).logits)
