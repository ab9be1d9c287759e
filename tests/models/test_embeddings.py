"""Token embeddings from outside: their getter, another vocabulary, and embedded tokens as inputs."""

import pytest
import torch

from rmaat import RmaatForMaskedLM
from rmaat.backprop.segment_memory import saved_bytes


def test_embedded_tokens_give_the_logits_of_their_ids(make_model, ragged):
    model = make_model().eval()
    wanted = model(**ragged)
    embeds = model.get_input_embeddings()(ragged["input_ids"])
    # Padding is not read.
    embeds[1, 19:] = torch.nan
    batch = {"attention_mask": ragged["attention_mask"], "labels": ragged["labels"]}
    result = model(inputs_embeds=embeds, **batch)
    assert torch.equal(result.logits, wanted.logits)
    assert torch.equal(result.memory, wanted.memory)
    # A length that is no whole number of segments.
    ids = ragged["input_ids"][:1, :19]
    assert torch.equal(model(inputs_embeds=model.get_input_embeddings()(ids)).logits, model(ids).logits)


def test_two_calls_with_embedded_tokens_are_one(make_model, ragged):
    model = make_model().eval()
    embeds = model.get_input_embeddings()(ragged["input_ids"][:1])
    first = model(inputs_embeds=embeds[:, :16], total_segments=4)
    second = model(inputs_embeds=embeds[:, 16:], memory=first.memory, segment_offset=2, total_segments=4)
    assert torch.equal(second.logits, model(inputs_embeds=embeds).logits)


def test_replay_gives_embedded_tokens_the_gradient_of_full_backpropagation(make_model, ragged):
    gradients = []
    for replay in (True, False):
        model = make_model(memory_replay_backprop=replay)
        embeds = model.get_input_embeddings()(ragged["input_ids"]).detach().requires_grad_()
        torch.manual_seed(3)
        model(inputs_embeds=embeds, attention_mask=ragged["attention_mask"], labels=ragged["labels"]).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()} | {"inputs_embeds": embeds.grad})
    assert gradients[1].pop("rmaat.encoder.embedding.tokens.weight") is None
    for name, grad in gradients[1].items():
        assert grad.norm() > 0, name
        assert (gradients[0][name] - grad).norm() <= 1e-12 * grad.norm(), name
    assert not gradients[0]["inputs_embeds"][1, 19:].any()


def test_with_embedded_tokens_replay_stores_little_more_than_them(make_model):
    stored = {}
    for replay in (True, False):
        for segments in (4, 12):
            model = make_model(
                memory_replay_backprop=replay, max_seq_len=16 * segments, num_segments=segments, hidden_dropout_prob=0.0
            )
            embeds = torch.randn(2, 16 * segments, 16, dtype=torch.float64, requires_grad=True)
            logits = model(inputs_embeds=embeds).logits
            stored[replay, segments] = saved_bytes([logits], model.parameters()) - embeds.nbytes
    assert stored[True, 12] - stored[True, 4] < 0.05 * (stored[False, 12] - stored[False, 4])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"inputs_embeds": torch.ones(1, 8, 16), "input_ids": torch.ones(1, 8, dtype=torch.long)}, "no input_ids"),
        ({"inputs_embeds": torch.ones(1, 8, 15)}, r"must be \(batch, tokens, 16\)"),
        ({"inputs_embeds": torch.ones(1, 8, 16, dtype=torch.long)}, r"must be \(batch, tokens, 16\)"),
        ({"inputs_embeds": torch.full((1, 8, 16), torch.inf)}, "inputs_embeds must be finite; row 0"),
        ({"inputs_embeds": torch.ones(1, 8, 16), "masked": torch.ones(1, 8, dtype=torch.bool)}, "needs input_ids"),
    ],
)
def test_embedded_tokens_that_do_not_fit_are_refused(make_model, call, message):
    with pytest.raises(ValueError, match=message):
        make_model(masked_head=True)(**call)
    with pytest.raises(ValueError, match="input_type 'tokens'"):
        make_model(input_type="values")(inputs_embeds=torch.ones(1, 8, 16))


def test_another_number_of_tokens_keeps_the_old_ones(make_model, ragged, tmp_path):
    model = make_model(masked_head=True).eval()
    wanted = model(**ragged).logits
    model.resize_token_embeddings(20)
    assert model.config.vocab_size == 20
    assert torch.equal(model(**ragged).logits, wanted)
    masked = torch.ones(4, 32, dtype=torch.bool)
    # The new ids are known as inputs and as predictions.
    new = {**ragged, "input_ids": ragged["input_ids"] + 4}
    assert model(**new, masked=masked).masked_loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.float64)
    torch.testing.assert_close(loaded(**new).logits, model(**new).logits)
    pretrained = RmaatForMaskedLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert pretrained.get_output_embeddings().out_features == 20
    with pytest.raises(NotImplementedError, match="no token embeddings"):
        make_model(input_type="values").resize_token_embeddings(20)
