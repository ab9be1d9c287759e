"""Padding, splitting, rows of different length: each sample gets what it gets alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

TIGHT = {"rtol": 1e-10, "atol": 1e-12}
FORMS = [
    {},
    {"attention_type": "softmax"},
    {"norm_first": True, "readout": "running_mean"},
    {"retention_schedule": "none", "readout": "first"},
    {"retention_schedule": "none", "readout": "last"},
    {"retention_schedule": "learned"},
    {"num_memory_tokens": 0},
]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_padded_batch_gives_each_sample_its_own_result(make_model, ragged, form):
    model = make_model(**form).eval()
    ids, mask = ragged["input_ids"], ragged["attention_mask"]
    batch = model(ids, attention_mask=mask)
    far = 0 if form.get("retention_schedule") == "learned" else 23
    wide_mask = torch.nn.functional.pad(mask, (0, far))
    # What lies under the mask must never be read: give it ids that would show.
    wide = model(torch.nn.functional.pad(ids, (0, far)).where(wide_mask == 1, 15), attention_mask=wide_mask)
    for row in range(4):
        length = int(mask[row].sum())
        alone = model(ids[row : row + 1, :length])
        for found in (batch, wide):
            for key in ("logits", "memory", "readout"):
                torch.testing.assert_close(found[key][row], alone[key][0], **TIGHT)


def test_past_its_end_a_rows_state_is_untouched(make_model):
    """Bit for bit: the other row's further segments must not pass through it."""
    model = make_model().eval()
    ids = torch.arange(32).remainder(16).repeat(2, 1)
    mask = (torch.arange(32) < torch.tensor([8, 32])[:, None]).long()
    short = model(ids[:, :8])
    both = model(ids, attention_mask=mask, total_segments=torch.tensor([1, 4]))
    assert torch.equal(both.memory[0], short.memory[0])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_two_calls_over_the_halves_equal_one(make_model, form):
    model = make_model(**form, hidden_dropout_prob=0.0).train()
    ids = torch.randint(0, 16, (3, 32), generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([1, 0, 4])
    whole = model(ids, labels=labels)
    first = model(ids[:, :16], total_segments=4)
    second = model(
        ids[:, 16:], memory=first.memory, readout=first.readout, segment_offset=2, total_segments=4, labels=labels
    )
    torch.testing.assert_close(second.logits, whole.logits, **TIGHT)
    torch.testing.assert_close(second.memory, whole.memory, **TIGHT)
    parameters = [p for p in model.parameters() if p.numel()]
    wanted = torch.autograd.grad(whole.loss, parameters)
    found = torch.autograd.grad(second.loss, parameters)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() <= 1e-10 * other.norm()


def test_a_row_that_ended_in_the_first_half_is_carried_through_the_second(make_model):
    model = make_model(readout="running_mean").eval()
    ids = torch.randint(0, 16, (2, 32), generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(32) < torch.tensor([11, 30])[:, None]).long()
    total = torch.tensor([2, 4])
    whole = model(ids, attention_mask=mask)
    first = model(ids[:, :16], attention_mask=mask[:, :16], total_segments=total)
    second = model(
        ids[:, 16:],
        attention_mask=mask[:, 16:],
        memory=first.memory,
        readout=first.readout,
        segment_offset=2,
        total_segments=total,
    )
    torch.testing.assert_close(second.logits, whole.logits, **TIGHT)
    assert torch.equal(second.memory[0], first.memory[0])


def test_rows_without_a_token_give_back_their_memory(make_model):
    model = make_model().eval()
    memory = torch.randn(2, 2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    ids, none = torch.zeros(2, 8, dtype=torch.long), torch.zeros(2, 8, dtype=torch.long)
    out = model(ids, attention_mask=none, memory=memory)
    assert torch.equal(out.memory, memory)
    assert torch.isfinite(out.logits).all()


@settings(deadline=None, max_examples=25)
@given(data=st.data(), segments=st.integers(1, 6), schedule=st.sampled_from(["ltp", "streaming", "none"]))
def test_streaming_segment_by_segment_equals_one_call(make_model, data, segments, schedule):
    model = make_model(retention_schedule=schedule, readout="running_mean").eval()
    last = data.draw(st.integers(1, 8))
    tokens = 8 * (segments - 1) + last
    ids = torch.randint(0, 16, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    memory = readout = None
    for index in range(segments):
        out = model(
            ids[:, 8 * index : 8 * index + 8],
            memory=memory,
            readout=readout,
            segment_offset=index,
            total_segments=segments,
        )
        memory, readout = out.memory, out.readout
    torch.testing.assert_close(out.logits, model(ids).logits, **TIGHT)


def test_the_retention_factor_scales_the_memory(make_model):
    """One segment under 'constant': the memory is that factor times the one under 'none'."""
    ids = torch.arange(8)[None]
    plain = make_model(retention_schedule="none").eval()(ids).memory
    scaled = make_model(retention_schedule="constant", retention_constant=0.25).eval()(ids).memory
    torch.testing.assert_close(scaled, 0.25 * plain, **TIGHT)


def test_longer_input_than_max_seq_len_is_more_segments(make_model):
    model = make_model().eval()
    assert torch.isfinite(model(torch.zeros(1, 100, dtype=torch.long)).logits).all()
    with pytest.raises(ValueError, match="num_segments 4"):
        make_model(retention_schedule="learned").eval()(torch.zeros(1, 100, dtype=torch.long))


def test_a_bfloat16_model_counts_every_token(make_model):
    model = make_model(readout="running_mean").bfloat16().eval()
    out = model.rmaat(torch.zeros(1, 4001, dtype=torch.long))
    assert out.readout[0, -1].item() == 4001
    assert out.pooled.dtype == torch.bfloat16
