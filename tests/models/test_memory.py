"""Forms of the memory: each against a plain loop over samples and segments, and with every way of going back."""

import pytest
import torch

from rmaat.astrocyte import retention_factors
from rmaat.attention.registry import BUILT_IN
from rmaat.errors import UserError
from rmaat.models import RmaatConfig, RmaatModel, segment
from rmaat.models.layout import moving_permutations, permuted
from rmaat.ops import associative_read, associative_write, delta_read, delta_write

ORDERED = [name for name, attention in BUILT_IN.items() if attention.ordered]
ASSOCIATIVE = {"associative_memory": True}
ROTATED = ("interpolate", "gate")
FORMS = [
    ASSOCIATIVE,
    {**ASSOCIATIVE, "associative_retention": True, "retention_schedule": "constant"},
    {**ASSOCIATIVE, "norm_first": True, "readout": "running_mean"},
    {**ASSOCIATIVE, "associative_writers": "all"},
    {**ASSOCIATIVE, "associative_writers": "all", "associative_rule": "delta"},
    {**ASSOCIATIVE, "associative_writers": "all", "memory_layout": "back", "short_conv_size": 3},
    {"retention_form": "relative"},
    {"retention_form": "relative", "retention_schedule": "learned"},
    {"retention_form": "interpolate"},
    {"retention_form": "gate"},
    {"retention_form": "interpolate", "retention_schedule": "rotating", "num_memory_tokens": 3},
    {"retention_form": "gate", "retention_schedule": "rotating", "num_memory_tokens": 2},
    {"memory_layout": "back"},
    {"memory_layout": "read_write"},
    {"short_conv_size": 3},
    {**ASSOCIATIVE, "retention_form": "interpolate", "retention_schedule": "constant", "retention_constant": 0.0},
    {**ASSOCIATIVE, "memory_layout": "back", "retention_form": "gate", "readout": "running_mean"},
    {**ASSOCIATIVE, "memory_layout": "read_write", "retention_form": "interpolate", "short_conv_size": 5},
]
every_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: " ".join(f"{k}={v}" for k, v in form.items()))


def neighbours_added(x_SD, taps_DK):
    """Each token plus the weighted sum of its neighbours, token by token."""
    half = taps_DK.shape[1] // 2
    sums = [
        sum(taps_DK[:, j + half] * x_SD[n + j] for j in range(-half, half + 1) if 0 <= n + j < len(x_SD))
        for n in range(len(x_SD))
    ]
    return x_SD + torch.stack(sums)


def plain(model, ids_N):
    """Logits, memory and associations of one sample without dropout, position by position of the recurrence."""
    config, encoder = model.config, model.rmaat.encoder
    segments = ids_N.split(config.positions_per_segment)
    count = config.num_memory_tokens
    if config.schedule == "rotating":
        written = [[float(place == index % count) for place in range(count)] for index in range(len(segments))]
        factors = torch.tensor(written, dtype=torch.float64)[..., None]
    elif config.schedule == "learned":
        factors = model.rmaat.retention_logits[: len(segments)].softmax(0)
    else:
        of_schedule = retention_factors(len(segments), config.schedule, config.astrocyte, config.retention_constant)
        factors = torch.from_numpy(of_schedule.copy())
    if config.retention_form == "relative":
        factors = factors / max(factors)
    positions_SD, *of_layers = encoder.shared()
    memory_MD = model.rmaat.first_memory
    associations_LPE = torch.zeros(config.associations_shape, dtype=torch.float64)
    total_D, positions = 0, 0
    for ids_S, factor in zip(segments, factors, strict=True):
        tokens_SD = encoder.embedding(ids_S[None], positions_SD[: len(ids_S)])[0]
        if config.memory_layout == "front":
            x_ND, written, tokens = torch.cat([memory_MD, tokens_SD]), slice(0, count), slice(count, None)
        elif config.memory_layout == "back":
            x_ND, written, tokens = torch.cat([tokens_SD, memory_MD]), slice(-count, None), slice(0, -count)
        else:
            x_ND = torch.cat([memory_MD, tokens_SD, memory_MD + encoder.write_offset])
            written, tokens = slice(-count, None), slice(count, -count)
        stored = []
        for index, block in enumerate(encoder.blocks):
            if config.associative_memory:
                layer, held_PE = encoder.associative[index], associations_LPE[index]
                read = delta_read if config.associative_rule == "delta" else associative_read
                x_ND = x_ND + read(layer.query(x_ND)[None], held_PE[None])[0]
            shared = of_layers[index] if of_layers else None
            if config.short_conv_size:
                x_ND[tokens] = neighbours_added(x_ND[tokens], encoder.convolutions[index].taps)
            x_ND = block(x_ND[None], torch.ones(1, len(x_ND), dtype=torch.bool), shared, None)[0]
            if config.associative_memory:
                if config.associative_retention:
                    held_PE = factor * held_PE
                all_write = config.associative_writers == "all"
                new_WD, key = (x_ND, layer.query) if all_write else (x_ND[written], layer.key)
                if config.associative_rule == "delta" and config.norm_first:
                    deviation_W1 = (new_WD.var(1, keepdim=True, unbiased=False) + 1e-5) ** 0.5
                    new_WD = (new_WD - new_WD.mean(1, keepdim=True)) / deviation_W1
                strength_W1 = 1 / (1 + torch.exp(-layer.strength(new_WD)))
                delta = config.associative_rule == "delta"
                if delta:
                    strength_W1 = torch.tensor(
                        [[min(max(1.2 * x.item() - 0.1, 0), 1)] for x in strength_W1], dtype=torch.float64
                    )
                of_writers = (key(new_WD), layer.value(new_WD), strength_W1, held_PE)
                stored.append((delta_write if delta else associative_write)(*(x[None] for x in of_writers))[0])
        if stored:
            associations_LPE = torch.stack(stored)
        x_ND = encoder.final_norm(x_ND)
        new_MD = x_ND[written]
        if config.retention_form == "gate":
            start = torch.log(factor.clamp(1e-4, 1 - 1e-4) / (1 - factor.clamp(1e-4, 1 - 1e-4)))
            both = torch.cat([new_MD, memory_MD], 1)
            gate = 1 / (1 + torch.exp(-(both @ encoder.gate.weight.T + encoder.gate.bias + start)))
            memory_MD = gate * new_MD + (1 - gate) * memory_MD
        elif config.retention_form == "interpolate":
            memory_MD = factor * new_MD + (1 - factor) * memory_MD
        else:
            memory_MD = factor * new_MD
        if config.readout == "running_mean":
            total_D, positions = total_D + x_ND[tokens].sum(0), positions + len(ids_S)
        else:
            total_D, positions = x_ND.sum(0), len(x_ND)
    return {"logits": model.classifier(total_D / positions), "memory": memory_MD, "associations": associations_LPE}


WITHOUT_TOKENS = {**ASSOCIATIVE, "associative_writers": "all", "num_memory_tokens": 0}


@pytest.mark.parametrize("form", [*FORMS, WITHOUT_TOKENS], ids=str)
@pytest.mark.parametrize("attention_type", ["astro", "vla"])
def test_the_model_is_its_loop_over_samples_and_segments(make_model, ragged, form, attention_type):
    """In a padded batch: the loop has no padding."""
    model = make_model(attention_type=attention_type, **form).eval()
    out = model(ragged["input_ids"], attention_mask=ragged["attention_mask"])
    for row, length in enumerate(ragged["attention_mask"].sum(1).tolist()):
        for name, wanted in plain(model, ragged["input_ids"][row, :length]).items():
            found = torch.zeros_like(wanted) if out.get(name) is None else out[name][row]
            assert (found - wanted).norm() <= 1e-10 * wanted.norm(), (row, name)


def gradients(model, batch):
    torch.manual_seed(5)
    model.train().zero_grad()
    out = model(**batch)
    final = [x for x in (out.memory, out.associations) if x is not None]
    (out.loss + sum(x.square().mean() for x in final)).backward()
    return {name: p.grad for name, p in model.named_parameters()}


WAYS_BACK = [
    {"replay_budget": 2},
    {"replay_budget": "1GiB"},
    {"replay_buffer": "cpu"},
    {"memory_replay_backprop": False, "truncated_segments": 4},
]


@pytest.mark.parametrize(
    ("form", "back"), [*((form, {}) for form in FORMS), *((FORMS[-2], back) for back in WAYS_BACK)], ids=str
)
def test_every_way_back_has_the_full_gradient(make_model, ragged, form, back):
    """Under dropout."""
    wanted = gradients(make_model(memory_replay_backprop=False, **form), ragged)
    found = gradients(make_model(**form, **back), ragged)
    for name, grad in wanted.items():
        assert grad.norm() > 0, name
        assert (found[name] - grad).norm() <= 1e-10 * grad.norm(), name


@pytest.mark.parametrize(
    ("attention_type", "form"),
    [
        *((name, ASSOCIATIVE) for name in BUILT_IN),
        *((name, {"memory_layout": "back"}) for name in ORDERED),
        *((name, {**ASSOCIATIVE, "memory_layout": "read_write"}) for name in ("softmax", "linformer", "vla")),
        *(
            ("astro", {"retention_schedule": "rotating", "retention_form": form, "num_memory_tokens": 3})
            for form in ROTATED
        ),
    ],
    ids=str,
)
def test_with_every_attention_type(make_model, ragged, form, attention_type, monkeypatch):
    """Replay is full backpropagation, padded is alone, halves are the whole."""
    # The last segment of a row alone is then narrower than in the batch.
    monkeypatch.setattr(segment, "WIDTH_STEP", 2)
    settings = {"attention_type": attention_type, "retention_schedule": "none", **form}
    wanted = gradients(make_model(memory_replay_backprop=False, **settings), ragged)
    model = make_model(**settings)
    for name, grad in gradients(model, ragged).items():
        assert (grad - wanted[name]).norm() <= 1e-10 * wanted[name].norm(), name
    model.eval()
    ids, mask = ragged["input_ids"], ragged["attention_mask"]
    batch = model(ids.where(mask == 1, -100), attention_mask=mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        alone = model(ids[row : row + 1, :length])
        assert (batch.logits[row] - alone.logits[0]).norm() <= 1e-10 * alone.logits.norm()
    first = model(ids[:, :16], attention_mask=mask[:, :16], total_segments=torch.tensor([4, 3, 1, 1]))
    second = model(
        ids[:, 16:],
        attention_mask=mask[:, 16:],
        memory=first.memory,
        readout=first.readout,
        associations=first.associations,
        segment_offset=2,
        total_segments=torch.tensor([4, 3, 1, 1]),
    )
    for name in ("logits", "memory", "associations"):
        if batch.get(name) is not None:
            assert (second[name] - batch[name]).norm() <= 1e-10 * batch[name].norm(), name
    # Rows that ended in the first half, bit for bit.
    assert torch.equal(second.memory[2:], first.memory[2:])


def test_a_gate_begins_as_interpolation(make_model, ragged):
    gated, plain_form = make_model(retention_form="gate").eval(), make_model(retention_form="interpolate").eval()
    torch.nn.init.zeros_(gated.rmaat.encoder.gate.weight)
    torch.nn.init.zeros_(gated.rmaat.encoder.gate.bias)
    plain_form.load_state_dict({name: x for name, x in gated.state_dict().items() if ".gate." not in name})
    long_rows = {name: x[:2] for name, x in ragged.items()}
    torch.testing.assert_close(gated(**long_rows).memory, plain_form(**long_rows).memory, rtol=1e-12, atol=0)


def test_what_a_gate_and_write_positions_start_from():
    torch.manual_seed(0)
    config = RmaatConfig(retention_form="gate", memory_layout="read_write", num_memory_tokens=64)
    encoder = RmaatModel(config).encoder
    assert not encoder.gate.weight.any()
    assert not encoder.gate.bias.any()
    assert encoder.write_offset.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("attention_type", ORDERED)
def test_memory_at_the_back_is_another_model(make_model, attention_type):
    ids = torch.arange(16)[None]
    front, back = (make_model(attention_type=attention_type, memory_layout=x).eval() for x in ("front", "back"))
    assert (front(ids).logits - back(ids).logits).norm() > 1e-6


def test_positions_move_behind_those_of_each_row():
    first, count, total, lengths = 2, 3, 9, [0, 1, 4]
    order, places = moving_permutations(first, count, torch.tensor(lengths), total)
    x = torch.arange(total).expand(3, -1)
    for row, length in enumerate(lengths):
        wanted = list(range(total))
        block = [wanted.pop(first) for _ in range(count)]
        wanted[first + length : first + length] = block
        assert order[row].tolist() == wanted
    found = permuted(permuted(x[..., None].double(), order), places)
    assert torch.equal(found[..., 0], x.double())


def test_retention_of_associations_scales_what_was_there(make_model):
    """The sum of keys after a second segment that writes none of them anew."""
    model = make_model(**FORMS[1], retention_constant=0.25).eval()
    ids = torch.arange(16)[None]
    with torch.no_grad():
        for layer in model.rmaat.encoder.associative:
            layer.key.weight.zero_()
            layer.value.weight.zero_()
        first = model(ids[:, :8], total_segments=2)
        held = torch.rand(first.associations.shape, dtype=torch.float64)
        second = model(ids[:, 8:], memory=first.memory, associations=held, segment_offset=1, total_segments=2)
    torch.testing.assert_close(second.associations, 0.25 * held, rtol=1e-14, atol=0)


def test_associations_are_in_float32_under_autocast_and_in_bfloat16(make_model, ragged):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = make_model(**ASSOCIATIVE).float()(**ragged)
    out.loss.backward()
    assert out.associations.dtype == torch.float32
    narrow = make_model(**ASSOCIATIVE).bfloat16()(**ragged)
    assert (narrow.memory.dtype, narrow.associations.dtype) == (torch.bfloat16, torch.float32)


def test_without_associative_memory_there_are_no_associations(make_model, ragged):
    assert make_model()(**ragged).associations is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({**ASSOCIATIVE, "num_memory_tokens": 0}, "set num_memory_tokens >= 1"),
        ({"num_memory_tokens": 0, "memory_layout": "back"}, "'back' needs num_memory_tokens >= 1"),
        ({"memory_layout": "back", "attention_type": "softmax"}, "has no effect in attention_type 'softmax'"),
        ({"memory_layout": "back", "hebbian_astro": False}, "'astro' without hebbian_astro"),
        ({"memory_layout": "read_write", "attention_type": "luna"}, "must be 'front'"),
        ({"memory_layout": "fornt"}, "did you mean 'front'"),
        ({"retention_form": "gated"}, "did you mean 'gate'"),
        ({"retention_form": "relative", "retention_schedule": "none"}, "needs retention factors"),
        ({"retention_schedule": "rotating"}, "needs retention_form 'interpolate' or 'gate'"),
        (
            {"retention_schedule": "rotating", "retention_form": "gate", "num_memory_tokens": 0},
            "'rotating' writes the memory tokens in turn",
        ),
        ({"associative_size": 1}, "associative_size must be a whole number >= 2"),
        ({"associative_retention": True}, "needs associative_memory: true"),
        (
            {"retention_schedule": "constant", "retention_constant": 0.0, "retention_form": "relative"},
            "another retention_form than 'relative'",
        ),
        (
            {**ASSOCIATIVE, "retention_schedule": "constant", "retention_constant": 0.0, "associative_retention": True},
            "associative_retention false",
        ),
        ({"associative_writers": "all"}, "'all' needs associative_memory: true"),
        ({"associative_rule": "delta"}, "'delta' needs associative_memory: true"),
        ({**ASSOCIATIVE, "associative_writers": "al"}, "did you mean 'all'"),
        ({"short_conv_size": 4}, "short_conv_size must be odd, not 4"),
        ({"short_conv_size": 0}, "short_conv_size must be a whole number >= 1, not 0"),
        ({"hebbian_scale": "12"}, "hebbian_scale is '12'; it must be a number, 'auto' or null"),
        ({**ASSOCIATIVE, "associative_retention": True, "astro_mem": False}, "needs retention factors"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        RmaatConfig(**settings)


@pytest.mark.parametrize(
    ("form", "call", "said"),
    [
        ({}, {"associations": torch.zeros(1)}, "need a model with associative_memory: true"),
        (ASSOCIATIVE, {"memory": torch.zeros(1, 2, 16)}, "takes memory and associations together"),
        (
            ASSOCIATIVE,
            {"memory": torch.zeros(1, 2, 16), "associations": torch.zeros(1, 2, 24, 16)},
            r"associations must be \(1, 2, 24, 17\), not \(1, 2, 24, 16\)",
        ),
    ],
)
def test_states_that_do_not_fit_are_refused(make_model, form, call, said):
    with pytest.raises(UserError, match=said):
        make_model(**form)(torch.ones(1, 8, dtype=torch.long), **call)
