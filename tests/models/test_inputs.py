"""Real-valued inputs and pairs."""

import pytest
import torch


def values(batch: int = 3, tokens: int = 27) -> torch.Tensor:
    return torch.randn(batch, tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_values_get_their_gradient_through_replay(make_model):
    found = []
    for replay in (True, False):
        model = make_model(input_type="values", memory_replay_backprop=replay, retention_schedule="none").train()
        torch.manual_seed(0)
        x = values().requires_grad_()
        mask = (torch.arange(27) < torch.tensor([27, 10, 3])[:, None]).long()
        model(input_values=x, attention_mask=mask, labels=torch.tensor([0, 1, 2])).loss.backward()
        assert torch.all(x.grad[mask == 0] == 0)
        found.append([x.grad, *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_padded_values_give_each_sample_its_own_result(make_model):
    model = make_model(input_type="values").eval()
    x = values()
    mask = (torch.arange(27) < torch.tensor([27, 10, 3])[:, None]).long()
    batch = model(input_values=x.where(mask == 1, torch.nan), attention_mask=mask).logits
    for row, length in enumerate((27, 10, 3)):
        alone = model(input_values=x[row : row + 1, :length]).logits[0]
        torch.testing.assert_close(batch[row], alone, rtol=1e-10, atol=1e-12)


def test_patches_of_values_are_tokens_that_are_embedded_by_a_linear_map(make_model):
    """Against a model of tokens whose table holds what the linear map makes of each patch."""
    patches = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ids = torch.randint(0, 16, (3, 32), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(32) < torch.tensor([32, 19, 3])[:, None]
    settings = {"retention_schedule": "none", "hidden_dropout_prob": 0.0}
    of_values = make_model(input_type="values", patch_size=4, max_seq_len=128, **settings).train()
    of_tokens = make_model(**settings).train()
    scale = of_values.rmaat.encoder.embedding.scale
    weights = {name: value for name, value in of_values.state_dict().items() if ".scale." not in name}
    table = {"rmaat.encoder.embedding.tokens.weight": patches @ scale.weight.T + scale.bias}
    of_tokens.load_state_dict(weights | table)
    values = patches[ids].where(mask[..., None], torch.nan).flatten(1)
    given = (
        {"input_values": values, "attention_mask": mask.repeat_interleave(4, 1)},
        {"input_ids": ids, "attention_mask": mask},
    )
    found = []
    for model, inputs in zip((of_values, of_tokens), given, strict=True):
        out = model(**inputs, labels=torch.tensor([0, 1, 2]))
        out.loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if "embedding" not in n}
        found.append({"logits": out.logits, "memory": out.memory, **gradients})
    of_table = of_tokens.rmaat.encoder.embedding.tokens.weight.grad
    torch.testing.assert_close(scale.weight.grad, of_table.T @ patches, rtol=1e-9, atol=1e-12)
    for name, one in found[0].items():
        assert one.norm() > 0
        assert (one - found[1][name]).norm() <= 1e-10 * one.norm(), name


def test_a_row_that_ends_within_a_patch_is_refused(make_model):
    model = make_model(input_type="values", patch_size=4)
    with pytest.raises(ValueError, match="row 1 has 6 values, which is no multiple of patch_size 4"):
        model(input_values=values(2, 8).float(), attention_mask=torch.arange(8) < torch.tensor([[8], [6]]))


def test_a_row_that_goes_on_is_told_its_length_in_values(make_model):
    model = make_model(input_type="values", patch_size=4, max_seq_len=128)
    with pytest.raises(ValueError, match="so its length 20 must be a multiple of the segment's 32 tokens"):
        model(input_values=values(1, 20), total_segments=3)


def test_an_activation_with_parameters_is_the_classifiers_only_beside_its_hidden_layer(make_model):
    names = {name for name, _ in make_model(hidden_act="prelu").named_parameters()}
    assert not {name for name in names if name.startswith("activation.")}


@pytest.mark.parametrize("towers", [False, True])
def test_a_hidden_layer_stands_before_the_classifier(make_model, towers):
    model = make_model(classifier_hidden_size=7, hidden_act="relu", two_towers=towers).eval()
    a, b = torch.randint(0, 16, (2, 2, 20), generator=torch.Generator().manual_seed(1))
    first, second = model.rmaat(a).pooled, model.rmaat(b).pooled
    features = torch.cat([first, second, first * second, first - second], 1) if towers else first
    hidden, last = model.classifier_hidden, model.classifier
    wanted = (features @ hidden.weight.T + hidden.bias).clamp_min(0) @ last.weight.T + last.bias
    found = model(a, other_input_ids=b if towers else None).logits
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    assert hidden.weight.shape == (7, 64 if towers else 16)


def test_segment_logits_go_through_the_hidden_layer(make_model):
    model = make_model(classifier_hidden_size=7).eval()
    out = model(torch.randint(0, 16, (2, 32)), output_segment_logits=True)
    torch.testing.assert_close(out.segment_logits[:, -1], out.logits, rtol=1e-12, atol=1e-12)


def test_a_pair_is_classified_by_both_and_their_product_and_difference(make_model):
    model = make_model(two_towers=True).eval()
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randint(0, 16, (2, 20), generator=generator), torch.randint(0, 16, (2, 31), generator=generator)
    mask = (torch.arange(31) < torch.tensor([31, 5])[:, None]).long()
    first, second = model.rmaat(a).pooled, model.rmaat(b, mask).pooled
    features = torch.cat([first, second, first * second, first - second], 1)
    wanted = features @ model.classifier.weight.T + model.classifier.bias
    found = model(a, other_input_ids=b, other_attention_mask=mask).logits
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "call", "said"),
    [
        ({}, {"input_values": values()}, "takes input_ids and no input_values"),
        ({"input_type": "values"}, {"input_ids": torch.ones(1, 3).long()}, "takes input_values and no input_ids"),
        ({"input_type": "values"}, {"input_values": torch.tensor([[1.0, torch.nan]])}, "row 0 holds a NaN"),
        ({"input_type": "values"}, {"input_values": torch.ones(1, 3).long()}, "floating-point"),
        ({}, {"input_ids": torch.ones(1, 3).long(), "other_input_ids": torch.ones(1, 3).long()}, "set two_towers"),
        ({"two_towers": True}, {"input_ids": torch.ones(1, 3).long()}, "give other_input_ids"),
        (
            {"two_towers": True},
            {
                "input_ids": torch.ones(1, 3).long(),
                "other_input_ids": torch.ones(1, 3).long(),
                "memory": torch.zeros(1, 2, 16),
            },
            "takes no memory, readout, associations, segment_offset or total_segments",
        ),
    ],
)
def test_inputs_of_the_other_kind_are_refused(make_model, settings, call, said):
    with pytest.raises(ValueError, match=said):
        make_model(**settings)(**call)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("masked", [False, True])
def test_ids_of_every_integer_type_give_the_same_result_and_gradients(make_model, ragged, kind, masked):
    found = []
    for ids in (ragged["input_ids"], ragged["input_ids"].to(kind)):
        model = make_model(retention_schedule="none").train()
        torch.manual_seed(0)
        mask = ragged["attention_mask"].bool() if masked else None
        out = model(ids, attention_mask=mask, labels=ragged["labels"])
        out.loss.backward()
        found.append([out.logits, *(p.grad for p in model.parameters())])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint16, torch.complex64])
def test_ids_of_other_types_are_refused(make_model, kind):
    with pytest.raises(ValueError, match="integers of a signed type or uint8"):
        make_model()(torch.ones(1, 3).to(kind))


def test_small_ids_are_checked_against_the_vocabulary(make_model):
    with pytest.raises(ValueError, match="holds the id 200; vocab_size 16"):
        make_model()(torch.tensor([[3, 200]], dtype=torch.uint8))
    with pytest.raises(ValueError, match="holds the id -1"):
        make_model()(torch.tensor([[3, -1]], dtype=torch.int8))


def test_a_row_without_finite_logits_is_named_in_evaluation(make_model, recwarn):
    model = make_model(input_type="values").float()
    values = torch.randn(3, 16)
    model.train()(input_values=values * 1e25)
    model.eval()(input_values=values)
    assert not recwarn
    values[1] *= 1e25
    with pytest.warns(UserWarning, match="the logits of row 1 are not finite") as record:
        model(input_values=values)
    assert record[0].filename == __file__
