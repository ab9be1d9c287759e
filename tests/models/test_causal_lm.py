"""The causal model: nothing later is seen, pieces equal the whole, replay is exact, generation is right."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, DynamicCache

from rmaat import RmaatConfig, RmaatForCausalLM, RmaatForSequenceClassification
from rmaat.backprop import Full, Replay
from rmaat.errors import UserError
from rmaat.models.segment import SegmentEncoder

SEGMENT, VOCABULARY = 8, 11


def causal_config(**settings):
    return RmaatConfig(**{
        "vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_seq_len": 4 * SEGMENT, "num_segments": 4, "num_memory_tokens": 2,
        "causal": True, "retention_schedule": "constant", "hidden_dropout_prob": 0.0, **settings,
    })  # fmt: skip


def causal_model(**settings):
    torch.manual_seed(0)
    model = RmaatForCausalLM(causal_config(**settings)).double().eval()
    with torch.no_grad():
        # Some parts start at 0 and would be without effect.
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def tokens(batch, length):
    return torch.randint(1, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(1))


ALL_WRITE = {"associative_memory": True, "associative_writers": "all", "associative_rule": "delta"}

MODELS = [
    *({"attention_type": kind} for kind in ("astro", "softmax", "linear", "vla", "s4d")),
    {"associative_memory": True, "associative_rule": "delta", "short_conv_size": 3},
    {"attention_decay": "learned", "rotary_positions": True, "reading_norm": True, "short_conv_size": 5},
    {"attention_type": "softmax", "num_memory_tokens": 0, "norm_first": False},
    {"retention_schedule": "rotating", "retention_form": "gate", "associative_memory": True},
    {**ALL_WRITE, "short_conv_size": 3},
    {"associative_memory": True, "associative_writers": "all", "num_memory_tokens": 0, "norm_first": False},
]


def named(settings):
    return "-".join(map(str, settings.values()))


@pytest.fixture(params=MODELS, ids=named)
def model(request):
    return causal_model(**request.param)


def read_in_pieces(model, ids, sizes):
    cache, logits = None, []
    for piece in ids.split(sizes, 1):
        out = model(piece, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        logits.append(out.logits)
    return torch.cat(logits, 1), cache


@pytest.mark.parametrize("sizes", [[29], [1] * 29, [3, 17, 9]], ids=["at once", "one by one", "pieces"])
@torch.no_grad()
def test_pieces_give_the_logits_of_one_pass(model, sizes):
    ids = tokens(3, 29)
    found, _ = read_in_pieces(model, ids, sizes)
    torch.testing.assert_close(found, model(ids).logits, rtol=1e-9, atol=1e-11)


def test_no_token_sees_a_later_one_and_each_sees_the_segments_before(model):
    embedded = torch.randn(2, 29, 16, dtype=torch.float64, requires_grad=True)
    for i in (0, 6, 7, 8, 20, 28):
        (gradient,) = torch.autograd.grad(model(inputs_embeds=embedded).logits[:, i].square().sum(), embedded)
        assert not gradient[:, i + 1 :].any()
        # Without memory a token sees its own segment alone.
        config = model.config
        first = 0 if config.num_memory_tokens or config.associative_memory else i // SEGMENT * SEGMENT
        assert (gradient[:, first : i + 1].abs().amax((0, 2)) > 0).all()


def test_the_loss_is_that_of_the_logits_and_replay_gives_its_gradient(model):
    ids = tokens(3, 29)
    mask = torch.arange(29) < torch.tensor([29, 13, 24])[:, None]
    labels = ids.masked_fill(torch.rand(ids.shape) < 0.2, -100)
    gradients = []
    for backprop in (Full(), Replay()):
        model.backprop = backprop
        model.zero_grad()
        out = model(ids, mask, labels, output_token_losses=True, output_token_correct=True)
        out.loss.backward()
        gradients.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
        assert out.logits is None
    logits = model(ids, mask).logits
    targets = labels.masked_fill(~mask, -100)[:, 1:]
    wanted = cross_entropy(logits[:, :-1].mT, targets, reduction="none")
    torch.testing.assert_close(out.token_losses[:, 1:], wanted, rtol=1e-9, atol=1e-11)
    assert not out.token_losses[:, 0].any()
    assert out.token_correct.dtype == torch.bool
    right = [
        [False, *(int(label) == max(range(VOCABULARY), key=row.__getitem__) for row, label in zip(*pair, strict=True))]
        for pair in zip(logits[:, :-1].tolist(), targets.tolist(), strict=True)
    ]
    assert out.token_correct.tolist() == right
    assert model(ids, mask, labels).token_correct is None
    torch.testing.assert_close(out.loss, wanted.sum() / (targets != -100).sum(), rtol=1e-9, atol=0)
    for full, replayed in zip(*gradients, strict=True):
        torch.testing.assert_close(replayed, full, rtol=1e-8, atol=1e-11)
    # Full backpropagation is checked against the logits, whose way back does not go through the state.
    model.backprop = Full()
    model.zero_grad()
    logits = model(ids, mask).logits
    (cross_entropy(logits[:, :-1].mT, targets, reduction="sum") / (targets != -100).sum()).backward()
    for parameter, full in zip(model.parameters(), gradients[0], strict=True):
        torch.testing.assert_close(parameter.grad, full, rtol=1e-8, atol=1e-11)


@torch.no_grad()
def test_all_positions_in_use_write_and_no_others(monkeypatch):
    """5 of 8 tokens: the memory in front of them and that behind the padding write too."""
    model, outputs, honest = causal_model(**ALL_WRITE), [], SegmentEncoder.causal_layer

    def recorded(self, *args):
        outputs.append(honest(self, *args)[0][0])
        return honest(self, *args)

    monkeypatch.setattr(SegmentEncoder, "causal_layer", recorded)
    found = model(tokens(1, 5)).associations[0]
    for memory, x_ND, wanted in zip(model.rmaat.encoder.associative, outputs, found, strict=True):
        assert len(x_ND) == 2 + SEGMENT + 2
        used_WD = torch.cat([x_ND[:7], x_ND[-2:]])[None]
        written = memory.write(used_WD, torch.zeros_like(wanted)[None], torch.ones(1, 9, dtype=torch.bool))
        torch.testing.assert_close(wanted, written[0], rtol=1e-9, atol=1e-11)


@torch.no_grad()
def test_rows_of_a_batch_are_what_they_are_alone():
    model = causal_model(short_conv_size=3, attention_decay="learned", **ALL_WRITE)
    ids, lengths = tokens(3, 29), (29, 13, 24)
    mask = torch.arange(29) < torch.tensor(lengths)[:, None]
    together = model(ids, mask)
    for row, length in enumerate(lengths):
        alone = model(ids[row : row + 1, :length])
        torch.testing.assert_close(together.logits[row, :length], alone.logits[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(together.memory[row], alone.memory[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(together.associations[row], alone.associations[0], rtol=1e-9, atol=1e-11)


@torch.no_grad()
def test_the_cache_has_one_size_for_every_length(model):
    sizes = {read_in_pieces(model, tokens(2, length), [length])[1].nbytes for length in (1, 8, 9, 77)}
    assert len(sizes) == 1


def continued(model, ids, count):
    """Greedy continuation by whole passes."""
    for _ in range(count):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids


GREEDY = {"do_sample": False, "pad_token_id": 0}


@torch.no_grad()
def test_greedy_generation_is_the_repeated_whole_pass(model):
    ids = tokens(2, 5)
    assert torch.equal(model.generate(ids, max_new_tokens=9, **GREEDY), continued(model, ids, 9))


@torch.no_grad()
def test_beams_and_samples_are_those_without_a_cache():
    model, ids = causal_model(short_conv_size=3), tokens(2, 5)
    for settings in ({"num_beams": 3, **GREEDY}, {"do_sample": True, "top_k": 5, "pad_token_id": 0}):
        found = []
        for use_cache in (True, False):
            torch.manual_seed(0)
            found.append(model.generate(ids, max_new_tokens=12, use_cache=use_cache, **settings))
        assert torch.equal(*found)


@torch.no_grad()
def test_prompts_padded_on_the_left_go_on_as_they_do_alone():
    model = causal_model(short_conv_size=5, attention_decay="learned")
    ids, lengths = tokens(3, 13), (13, 5, 9)
    padded, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        padded[row, 13 - length :], mask[row, 13 - length :] = ids[row, :length], 1
    found = model.generate(padded, attention_mask=mask, max_new_tokens=10, **GREEDY)
    for row, length in enumerate(lengths):
        assert torch.equal(found[row, 13:], continued(model, ids[row : row + 1, :length], 10)[0, length:])


@torch.no_grad()
def test_rows_with_caches_at_different_places_go_on_as_they_do_alone(model):
    ids, lengths = tokens(3, 20), (13, 5, 16)
    prompt = torch.stack([row[:16].roll(16 - length) for row, length in zip(ids, lengths, strict=True)])
    mask = (torch.arange(16) >= 16 - torch.tensor(lengths)[:, None]).long()
    cache = model(prompt, mask, use_cache=True).past_key_values
    rest = torch.stack([row[length : length + 4] for row, length in zip(ids, lengths, strict=True)])
    found = model(rest, past_key_values=cache, use_cache=True).logits
    for row, length in enumerate(lengths):
        wanted = model(ids[row : row + 1, : length + 4]).logits[0, length:]
        torch.testing.assert_close(found[row], wanted, rtol=1e-9, atol=1e-11)


@torch.no_grad()
def test_a_second_turn_goes_on_from_the_cache():
    model, ids = causal_model(), tokens(2, 13)
    first = model.generate(ids, max_new_tokens=4, return_dict_in_generate=True, **GREEDY)
    prompt = torch.cat([first.sequences, ids[:, :6]], 1)
    found = model.generate(prompt, past_key_values=first.past_key_values, max_new_tokens=5, **GREEDY)
    assert torch.equal(found, continued(model, prompt, 5))


def test_it_is_stored_and_loaded_by_the_auto_class(tmp_path):
    model = causal_model()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    torch.testing.assert_close(loaded(tokens(1, 20)).logits, model(tokens(1, 20)).logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"retention_schedule": "ltp"}, "'ltp' needs it; choose one of 'streaming', 'constant', 'none', 'rotating'"),
        ({"attention_type": "luna"}, "'luna' has no causal form; 'astro', 'softmax', 'linear', 'vla', 's4d' have one"),
        ({"hebbian_sigmoid": True}, "causal: true excludes hebbian_sigmoid"),
        ({"memory_layout": "back"}, "leave out memory_layout"),
    ],
)
def test_settings_that_no_causal_model_can_have_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        causal_config(**settings)


def test_wrong_calls_are_refused():
    with pytest.raises(UserError, match="needs a config with causal: true"):
        RmaatForCausalLM(RmaatConfig(vocab_size=VOCABULARY))
    model, ids = causal_model(), tokens(1, 5)
    for call, message in (
        (lambda: model(ids, past_key_values=DynamicCache()), "must be an RmaatCache of this model, not DynamicCache"),
        (lambda: model(ids, labels=ids, use_cache=True), "takes only input_ids and attention_mask"),
        (lambda: model(ids, use_cache=True, output_token_correct=True), "takes only input_ids and attention_mask"),
        (lambda: model(ids, labels=ids + 10), "labels holds 20; vocab_size 11"),
        (lambda: model(ids, labels=ids[:, :3]), r"labels must be \(1, 5\) integers"),
        (lambda: model(ids + 20, use_cache=True), "vocab_size 11 allows 0 to 10"),
        (lambda: model(ids, torch.tensor([[1, 0, 1, 1, 1]]), use_cache=True), "zeros before or behind them; row 0"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_a_causal_classifier_reads_only_backwards():
    torch.manual_seed(0)
    config = causal_config(readout="first", num_labels=3)
    model = RmaatForSequenceClassification(config).eval()
    ids = tokens(1, SEGMENT)
    changed = torch.cat([ids[:, :1], tokens(2, SEGMENT)[1:, 1:]], 1)
    torch.testing.assert_close(model(ids).logits, model(changed).logits)
