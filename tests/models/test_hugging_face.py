"""Config, saving, loading, Auto classes: what users of transformers rely on."""

import json
import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.astrocyte import retention_factors


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"attention_type": "softmax"},
        {"retention_schedule": "learned"},
        {"associative_memory": True},
        {"retention_form": "gate", "memory_layout": "read_write"},
    ],
    ids=str,
)
def test_save_then_load_gives_the_same_logits(make_model, tmp_path, form):
    model = make_model(**form).eval()
    ids = torch.randint(0, 16, (2, 29), generator=torch.Generator().manual_seed(0))
    wanted = model(ids).logits
    model.save_pretrained(tmp_path)
    # What from_pretrained leaves unfilled holds whatever memory held: make that visible.
    torch.utils.deterministic.fill_uninitialized_memory = True
    for loader in (RmaatForSequenceClassification, AutoModelForSequenceClassification):
        loaded = loader.from_pretrained(tmp_path, dtype=torch.float64).eval()
        # Weights of a file lie at other addresses, so some processors sum in another order.
        torch.testing.assert_close(loaded(ids).logits, wanted)
    base = AutoModel.from_pretrained(tmp_path, dtype=torch.float64).eval()
    torch.testing.assert_close(base(ids).memory, model(ids).memory)
    assert AutoConfig.from_pretrained(tmp_path).num_labels == 5


def test_a_checkpoint_keeps_its_factors(tmp_path, make_model):
    model = make_model(macro_model={"tau_long": 60.0})
    model.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())["macro_model"]
    assert stored["tau_long"] == 60.0
    assert stored["tau_short"] == 2.0
    loaded = RmaatConfig.from_pretrained(tmp_path)
    assert loaded.astrocyte == model.config.astrocyte
    assert retention_factors(4, "ltp", loaded.astrocyte)[0] < retention_factors(4, "ltp")[0]


def test_learned_factors_begin_as_ltp():
    torch.manual_seed(0)
    model = RmaatForSequenceClassification(
        RmaatConfig(num_labels=2, max_seq_len=64, num_segments=8, retention_schedule="learned")
    )
    found = model.rmaat.retention_logits[:5].double().softmax(0)
    torch.testing.assert_close(found, torch.from_numpy(retention_factors(5, "ltp").copy()), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_segmens": 3}, "did you mean 'num_segments'"),
        ({"num_segments": 3, "max_seq_len": 32}, "does not divide max_seq_len 32; near divisors: 1, 2, 4, 8"),
        ({"num_segments": 300, "max_seq_len": 1000}, "near divisors: 100, 125, 200, 250"),
        ({"num_attention_heads": 3}, "does not divide hidden_size"),
        (
            {"input_type": "values", "patch_size": 3, "max_seq_len": 32, "num_segments": 4},
            r"patch_size 3 does not divide the 8 values of a segment \(max_seq_len 32 / num_segments 4\)",
        ),
        ({"patch_size": 2}, "patch_size 2 needs input_type 'values'"),
        ({"patch_size": 0}, "patch_size must be a whole number >= 1"),
        ({"classifier_hidden_size": 0}, "classifier_hidden_size must be a whole number >= 1"),
        ({"attention_type": "astra"}, "did you mean 'astro'"),
        ({"retention_schedule": "pateau"}, "did you mean 'plateau'"),
        ({"readout": "max"}, "known: first, last, mean, memory, running_mean"),
        ({"truncated_segments": 2}, "memory_replay_backprop: false"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob must be a number from 0 to 0.999"),
        ({"num_labels": 0}, "num_labels must be a whole number >= 1"),
        ({"vocab_size": 0}, "vocab_size must be a whole number >= 1"),
        ({"hebbian_scale": 0.0}, "hebbian_scale must be a number >= 1e-06"),
        ({"macro_model": {"tau_lon": 3}}, "did you mean 'tau_long'"),
        ({"macro_model": {"tau_long": -3.0}}, "tau_long"),
        ({"retention_constant": 1.5}, "retention_constant"),
        ({"num_memory_tokens": 0, "readout": "memory"}, "needs num_memory_tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        RmaatConfig(**settings)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"input_ids": torch.tensor([[1, 16]])}, "id 16; vocab_size 16 allows 0 to 15"),
        ({"input_ids": torch.tensor([[-1, 3]])}, "id -1"),
        ({"input_ids": torch.ones(2, 3, 4, dtype=torch.long)}, r"\(batch, tokens\) integers"),
        ({"input_ids": torch.ones(1, 3)}, "integers"),
        (
            {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.tensor([[1, 1, 1], [1, 0, 1]])},
            "row 1 is not",
        ),
        ({"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 4)}, "shape of the input"),
        (
            {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.tensor([[1, 1, 1], [0, 0, 0]])},
            "row 1 has no token",
        ),
        ({"input_ids": torch.ones(1, 0, dtype=torch.long)}, "row 0 has no token"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "labels": torch.tensor([5])}, "allows 0 to 4"),
        ({"input_ids": torch.ones(1, 3, dtype=torch.long), "labels": torch.tensor([1, 2])}, "labels must be"),
        ({"input_ids": torch.ones(1, 9, dtype=torch.long), "total_segments": 3}, "multiple of the segment's 8 tokens"),
        ({"input_ids": torch.ones(1, 16, dtype=torch.long), "total_segments": 1}, "less than segment_offset 0 plus"),
        ({"input_ids": torch.ones(1, 8, dtype=torch.long), "segment_offset": -1}, "segment_offset must be >= 0"),
        ({"input_ids": torch.ones(1, 8, dtype=torch.long), "memory": torch.ones(1, 3, 16)}, "memory must be"),
        (
            {"input_ids": torch.ones(2, 8, dtype=torch.long), "segment_offset": torch.tensor([0, 2])},
            r"segment_offset 2 \(row 1\) continues a sequence: give the memory",
        ),
        (
            {"input_ids": torch.ones(2, 8, dtype=torch.long), "total_segments": torch.tensor([1, 1, 1])},
            "total_segments must be one number, or one per row",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(make_model, call, said):
    with pytest.raises(ValueError, match=said):
        make_model()(**call)


def test_a_sum_over_segments_goes_on_with_its_readout(make_model):
    model = make_model(readout="running_mean").eval()
    first = model(torch.ones(1, 16, dtype=torch.long), total_segments=3)
    with pytest.raises(ValueError, match="give the readout of the call that returned the memory"):
        model(torch.ones(1, 8, dtype=torch.long), memory=first.memory, segment_offset=2)


def test_ids_under_the_mask_may_be_anything(make_model):
    model = make_model().eval()
    mask = torch.tensor([[1, 1, 0]])
    one, other = (model(torch.tensor([[1, 2, last]]), attention_mask=mask).logits for last in (0, -100))
    assert torch.equal(one, other)


@pytest.mark.slow
def test_importing_the_package_is_light_and_enough_for_the_auto_classes(make_model, tmp_path):
    make_model(masked_head=True).save_pretrained(tmp_path)
    names = "AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification"
    loads = f"[x.from_pretrained({str(tmp_path)!r}) for x in ({names})]"
    light = "import sys, rmaat; assert 'torch' not in sys.modules; assert 'transformers' not in sys.modules; "
    # PreTrainedModel first: its own module imports the registry while it is half imported itself.
    for script in (
        f"{light} from transformers import {names}; {loads}",
        f"{light} from transformers import PreTrainedModel, {names}; {loads}",
        f"from transformers import {names}; import rmaat; {loads}",
    ):
        subprocess.run([sys.executable, "-c", script], check=True)


@pytest.fixture
def tokenizer():
    """Words w0 .. w13, with special tokens."""
    words = {f"w{i}": i for i in range(14)} | {"[PAD]": 14, "[UNK]": 15}
    backend = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    special = {"bos_token": "w0", "eos_token": "w1", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


@pytest.mark.filterwarnings("error:config.json has keys")
def test_the_trainer_of_transformers_with_a_tokenizer_trains_saves_and_loads(make_model, tokenizer, tmp_path):
    model = make_model().float()
    rows = [{**tokenizer(f"w2 w{i}" + i * " w4"), "token_type_ids": [0] * (2 + i), "labels": i % 2} for i in range(8)]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=2, per_device_train_batch_size=4, use_cpu=True, report_to=[], save_steps=1
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path))
    stored = json.loads((tmp_path / "config.json").read_text())
    assert {key: stored[key] for key in ("pad_token_id", "bos_token_id", "eos_token_id")} == {
        "pad_token_id": 14,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert loaded.config.pad_token_id == 14
    batch = AutoTokenizer.from_pretrained(tmp_path)(["w2 w3", "w4 w5 w6"], padding=True, return_tensors="pt")
    model.eval()
    torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits)
    wanted = model(**batch).logits
    assert torch.equal(model(**batch, token_type_ids=torch.ones_like(batch["input_ids"])).logits, wanted)
    Trainer(model=loaded, args=arguments, train_dataset=rows, processing_class=tokenizer).train(
        resume_from_checkpoint=True
    )


def test_a_stored_config_may_have_keys_of_other_versions_and_keeps_them(make_model, tmp_path):
    make_model().config.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**stored, "num_segmens": 3, "problem_type": None}))
    with pytest.warns(UserWarning, match="without an effect in this version: num_segmens"):
        config = RmaatConfig.from_pretrained(tmp_path)
    assert config.num_segments == 4
    assert config.to_dict()["num_segmens"] == 3


@pytest.mark.parametrize(
    ("settings", "message", "replay"),
    [
        ({}, "computes segments again already", True),
        ({"memory_replay_backprop": False}, "sets memory_replay_backprop: true", True),
        ({"memory_replay_backprop": False, "truncated_segments": 2}, "truncated_segments limits the memory", False),
    ],
    ids=str,
)
def test_gradient_checkpointing_is_replay(make_model, tokenizer, tmp_path, settings, message, replay):
    model = make_model(**settings).float()
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, use_cpu=True, report_to=[], gradient_checkpointing=True, save_strategy="no"
    )
    rows = [{"input_ids": [1, 2, 3], "labels": i} for i in range(4)]
    with pytest.warns(UserWarning, match=message):
        Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer).train()
    assert model.config.memory_replay_backprop == replay
