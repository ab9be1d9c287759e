"""Hidden states of whole sequences, against the outputs of each layer that hooks read."""

import pytest
import torch

FORMS = [
    {},
    {"norm_first": False},
    {"memory_layout": "read_write"},
    {"memory_layout": "back"},
    {"memory_replay_backprop": False, "truncated_segments": 2},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_they_are_the_outputs_of_the_layers(make_model, ragged, form):
    model = make_model(**form).eval()
    outputs = []
    for block in model.rmaat.encoder.blocks:
        block.register_forward_hook(lambda _, __, output, outputs=outputs: outputs.append(output))
    with torch.no_grad():
        result = model(**ragged, output_hidden_states=True)
    states = result.hidden_states
    assert [tuple(x.shape) for x in states] == [(4, 32, 16)] * 3
    encoder, memory = model.rmaat.encoder, model.config.memory_positions
    positions = encoder.shared()[0][:8].repeat(4, 1)
    mask = ragged["attention_mask"].bool()
    torch.testing.assert_close(
        states[0][mask], (encoder.embedding.tokens(ragged["input_ids"]) + positions)[mask], rtol=0, atol=0
    )
    if form.get("memory_layout", "front") == "front":
        first = torch.cat([x[:, memory:] for x in outputs[::2]], 1)
        last = torch.cat([encoder.final_norm(x)[:, memory:] for x in outputs[1::2]], 1)
        torch.testing.assert_close(states[1][mask], first[mask], rtol=0, atol=0)
        torch.testing.assert_close(states[2][mask], last[mask], rtol=0, atol=0)
    else:
        # In this layout a row begins with the memory it reads, if any; its tokens follow, and the
        # memory it writes is last.
        tokens = outputs[0][:1, memory // 2 if form["memory_layout"] == "read_write" else 0 :][:, :8]
        torch.testing.assert_close(states[1][:1, :8], tokens, rtol=0, atol=0)
    assert not any(x[~mask].any() for x in states)
    assert torch.equal(result.logits, model(**ragged).logits)
    assert model(**ragged).hidden_states is None


def test_replay_gives_the_gradient_of_full_backpropagation(make_model, ragged):
    gradients = []
    for replay in (True, False):
        model = make_model(memory_replay_backprop=replay)
        torch.manual_seed(3)
        out = model(**ragged, output_hidden_states=True)
        weights = torch.linspace(-1, 1, 32 * 16, dtype=torch.float64).view(32, 16)
        (out.loss + sum((x.tanh() * weights).mean() for x in out.hidden_states)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in gradients[1].items():
        assert (gradients[0][name] - grad).norm() <= 1e-12 * grad.norm(), name


def test_the_config_may_ask_for_them_and_a_caller_for_a_tuple(make_model, ragged):
    model = make_model(output_hidden_states=True).eval()
    assert len(model(ragged["input_ids"][:, :5]).hidden_states) == 3
    assert model(ragged["input_ids"][:, :5]).hidden_states[0].shape == (4, 5, 16)
    logits, *_ = model(ragged["input_ids"], return_dict=False)
    assert torch.equal(logits, model(ragged["input_ids"]).logits)
    with pytest.raises(ValueError, match="no attention matrices"):
        model(ragged["input_ids"], output_attentions=True)
