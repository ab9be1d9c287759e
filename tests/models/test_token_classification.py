"""A class for each token: logits, loss, and its gradient through replay."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForTokenClassification

from rmaat import RmaatForTokenClassification
from rmaat.backprop.segment_memory import saved_bytes


@pytest.fixture
def make_tagger(make_model):
    """A function of settings; the encoder's parameters are those of `make_model`."""

    def make(**settings):
        classifier = make_model(**settings)
        tagger = RmaatForTokenClassification(classifier.config).double()
        tagger.load_state_dict(classifier.state_dict(), strict=False)
        generator = torch.Generator().manual_seed(4)
        head = tagger.rmaat.encoder.token_classifier
        with torch.no_grad():
            head.weight.copy_(torch.randn(head.weight.shape, dtype=torch.float64, generator=generator))
        return tagger

    return make


@pytest.fixture
def tagged(ragged):
    """`ragged` with a label for each token; some have none."""
    labels = torch.randint(0, 5, (4, 32), generator=torch.Generator().manual_seed(5))
    labels[:, ::3] = -100
    return {**ragged, "labels": labels}


def test_the_loss_is_the_cross_entropy_of_labelled_tokens(make_tagger, tagged):
    model = make_tagger().eval()
    out = model(**tagged, output_hidden_states=True)
    logits = model.rmaat.encoder.token_classifier(out.hidden_states[-1])
    used = tagged["attention_mask"].bool() & (tagged["labels"] != -100)
    torch.testing.assert_close(out.logits[used], logits[used], rtol=1e-12, atol=0)
    torch.testing.assert_close(out.loss, cross_entropy(logits[used], tagged["labels"][used]), rtol=1e-12, atol=0)
    assert model(**{**tagged, "labels": torch.full((4, 32), -100)}).loss == 0
    short = model(tagged["input_ids"][:, :5])
    assert short.logits.shape == (4, 5, 5)
    values = make_tagger(input_type="values", patch_size=2)
    assert values(input_values=torch.ones(3, 10, dtype=torch.float64)).logits.shape == (3, 5, 5)


@pytest.mark.parametrize("settings", [{}, {"associative_memory": True, "memory_layout": "read_write"}], ids=str)
def test_replay_gives_the_gradient_of_full_backpropagation(make_tagger, tagged, settings):
    gradients = []
    for replay in (True, False):
        model = make_tagger(memory_replay_backprop=replay, **settings)
        torch.manual_seed(3)
        model(**tagged).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in gradients[1].items():
        assert (gradients[0][name] - grad).norm() <= 1e-12 * grad.norm(), name
    assert gradients[0]["rmaat.first_memory"].norm() > 0


def test_replay_stores_the_logits_and_no_activations_of_earlier_segments(make_tagger):
    stored = {}
    for replay in (True, False):
        for segments in (4, 12):
            model = make_tagger(
                memory_replay_backprop=replay, max_seq_len=16 * segments, num_segments=segments, hidden_dropout_prob=0.0
            )
            ids = torch.ones(2, 16 * segments, dtype=torch.long)
            logits = model(ids).logits
            stored[replay, segments] = saved_bytes([logits], model.parameters())
            assert logits.shape == (2, 16 * segments, 5)
    assert stored[True, 12] - stored[True, 4] < 0.05 * (stored[False, 12] - stored[False, 4])


def test_two_calls_are_one(make_tagger, tagged):
    model = make_tagger().eval()
    ids = tagged["input_ids"][:1]
    first = model(ids[:, :16], total_segments=4)
    second = model(ids[:, 16:], memory=first.memory, segment_offset=2, total_segments=4)
    assert torch.equal(torch.cat([first.logits, second.logits], 1), model(ids).logits)


def test_saved_and_loaded_and_from_a_classifier(make_tagger, make_model, tagged, tmp_path):
    model = make_tagger().eval()
    model.save_pretrained(tmp_path / "tagger")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "tagger", dtype=torch.float64)
    torch.testing.assert_close(loaded(**tagged).logits, model(**tagged).logits)
    make_model().save_pretrained(tmp_path / "classifier")
    other = AutoModelForTokenClassification.from_pretrained(
        tmp_path / "classifier", num_labels=3, dtype=torch.float64
    ).eval()
    assert other(tagged["input_ids"]).logits.shape == (4, 32, 3)
    torch.testing.assert_close(other(tagged["input_ids"]).memory, model(tagged["input_ids"]).memory)


@pytest.mark.parametrize(
    ("labels", "message"),
    [(torch.zeros(4), "one for each position"), (torch.full((4, 32), 5), "labels holds 5; num_labels 5 allows 0 to 4")],
)
def test_labels_that_do_not_fit_are_refused(make_tagger, tagged, labels, message):
    with pytest.raises(ValueError, match=message):
        make_tagger()(**{**tagged, "labels": labels})
    with pytest.raises(ValueError, match="excludes two_towers"):
        make_tagger(two_towers=True)
