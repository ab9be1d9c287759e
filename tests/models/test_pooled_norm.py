"""What the classifier reads, standardised over the batch, against the formula."""

import pytest
import torch

EPSILON, MOMENTUM = 1e-5, 0.1


def pooled(model, *inputs):
    return torch.cat([model.rmaat(ids).pooled for ids in inputs])


def ids(rows, seed=1):
    return torch.randint(0, 16, (rows, 20), generator=torch.Generator().manual_seed(seed))


def classified(model, features):
    return features @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize("towers", [False, True])
def test_training_reads_deviations_and_evaluation_those_from_running_means(make_model, towers):
    model = make_model(pooled_norm=True, two_towers=towers, hidden_dropout_prob=0.0).train()
    inputs = [ids(5), ids(5, seed=2)][: 1 + towers]
    named = dict(zip(("input_ids", "other_input_ids"), inputs, strict=False))
    read = pooled(model, *inputs)

    def features(mean, variance):
        standard = (read - mean) / (variance + EPSILON).sqrt()
        if not towers:
            return standard
        a, b = standard[:5], standard[5:]
        return torch.cat([a, b, a * b, a - b], 1)

    wanted = classified(model, features(read.mean(0), read.var(0, correction=0)))
    torch.testing.assert_close(model(**named).logits, wanted, rtol=1e-10, atol=1e-12)
    running = MOMENTUM * read.mean(0), 1 - MOMENTUM + MOMENTUM * read.var(0)
    torch.testing.assert_close(
        model.eval()(**named).logits, classified(model, features(*running)), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("towers", [False, True])
def test_a_single_example_is_trained_on_by_the_running_statistics(make_model, towers):
    model = make_model(pooled_norm=True, two_towers=towers, hidden_dropout_prob=0.0).train()
    several, one = ({"input_ids": ids(n)} | ({"other_input_ids": ids(n, seed=2)} if towers else {}) for n in (5, 1))
    model(**several)
    found = model(**one).logits
    torch.testing.assert_close(found, model.eval()(**one).logits, rtol=1e-12, atol=1e-12)
    found.sum().backward()
    assert model.rmaat.first_memory.grad.norm() > 0


def test_what_a_model_without_it_never_saved_is_initialised(make_model, tmp_path):
    make_model().save_pretrained(tmp_path)
    norm = type(make_model()).from_pretrained(tmp_path, pooled_norm=True).pooled_norm
    assert (norm.running_mean == 0).all()
    assert (norm.running_var == 1).all()
    assert norm.num_batches_tracked == 0


def test_the_running_statistics_are_saved(make_model, tmp_path):
    model = make_model(pooled_norm=True).train()
    model(ids(5))
    model.eval().save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(again(ids(3)).logits, model(ids(3)).logits, rtol=1e-12, atol=1e-12)


def test_a_short_text_is_read_with_the_deviation_that_its_mean_has(make_model):
    """A mean over a quarter of the positions has twice the deviation."""
    model = make_model(pooled_norm=True, readout="running_mean", hidden_dropout_prob=0.0).eval()
    model.pooled_norm.running_mean.uniform_(-1, 1)
    model.pooled_norm.running_var.uniform_(0.1, 1)
    model.pooled_positions.fill_(20)
    for length, share in ((5, 0.5), (20, 1.0), (40, 1.0)):
        read = pooled(model, ids(3).repeat(1, 2)[:, :length])
        standard = (read - model.pooled_norm.running_mean) / (model.pooled_norm.running_var + EPSILON).sqrt()
        found = model(ids(3).repeat(1, 2)[:, :length]).logits
        torch.testing.assert_close(found, classified(model, share * standard), rtol=1e-10, atol=1e-12)


def test_the_usual_number_of_positions_is_learned_and_saved(make_model, tmp_path):
    model = make_model(pooled_norm=True, readout="running_mean").train()
    for _ in range(200):
        model(ids(5))
    assert abs(model.pooled_positions.item() - 20) < 1e-6
    model.save_pretrained(tmp_path)
    assert type(model).from_pretrained(tmp_path).pooled_positions == model.pooled_positions
