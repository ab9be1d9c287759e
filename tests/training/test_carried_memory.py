"""Memory that goes on from a training sequence to the next one of the same text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rmaat.errors import UserError
from rmaat.models import RmaatForCausalLM
from rmaat.training.batches import ConsecutiveSequences
from rmaat.training.carried_memory import CarriedMemory
from rmaat.training.config import RunConfig
from rmaat.training.run import train
from rmaat.training.trainer import SegmentTrainer

LENGTHS = (1000, 437, 90, 700)
WIDTH = 64


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    """A language model of four texts in sequences of two segments of 32 bytes."""
    rng = np.random.default_rng(0)
    (tmp_path / "texts").mkdir()
    for number, length in enumerate(LENGTHS):
        (tmp_path / "texts" / f"{number}.txt").write_bytes(rng.integers(97, 123, length, np.uint8).tobytes())
    (tmp_path / "other.txt").write_bytes(rng.integers(97, 123, 200, np.uint8).tobytes())
    return RunConfig(
        dataset="texts",
        train_file=str(tmp_path / "texts"),
        validation_file=str(tmp_path / "other.txt"),
        data_dir=str(tmp_path),
        output_dir=str(tmp_path / "run"),
        objective="causal",
        causal=True,
        carry_memory=True,
        retention_schedule="streaming",
        associative_memory=True,
        associative_rule="delta",
        max_seq_len=WIDTH,
        num_segments=2,
        num_memory_tokens=2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        hidden_dropout_prob=0.0,
        max_steps=24,
        eval_steps=8,
        warmup_steps=0,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
    )


def test_losses_are_those_of_texts_that_are_read_as_a_whole(run: RunConfig, tmp_path: Path, monkeypatch) -> None:
    """The learning rate changes nothing, so the model is that of the first step. An epoch has 18 batches."""
    seen = []
    honest = CarriedMemory.keep

    def noted(self, output, batch):
        if self._model.training:
            seen.append(
                (batch["input_ids"].numpy().copy(), batch["attention_mask"].sum(1).tolist(), output.loss.item())
            )
        honest(self, output, batch)

    monkeypatch.setattr(CarriedMemory, "keep", noted)
    metrics = train(replace(run, learning_rate=1e-30, weight_decay=0.0)).metrics
    model = RmaatForCausalLM.from_pretrained(run.output_dir).eval()
    texts = [(tmp_path / "texts" / f"{number}.txt").read_bytes() for number in range(len(LENGTHS))]
    # Of each row: the text that it read last, where it began there, and where it ended.
    last = [(-1, 0, 0), (-1, 0, 0)]
    carried = 0
    assert len(seen) == 24
    for ids_BN, lengths, loss in seen:
        losses = []
        for row, (ids, length) in enumerate(zip(ids_BN, lengths, strict=True)):
            sequence = ids[:length].astype(np.uint8).tobytes()
            ((number, start),) = [(n, text.index(sequence)) for n, text in enumerate(texts) if sequence in text]
            text, begun, end = last[row]
            # A text that is divided between two rows begins anew in the second.
            goes_on = (text, end) == (number, start)
            carried += goes_on
            begun = begun if goes_on else start
            last[row] = (number, begun, start + length)
            whole = torch.tensor([list(texts[number][begun : start + length])])
            with torch.no_grad():
                token_losses = model(whole, labels=whole, output_token_losses=True).token_losses[0]
            losses.append(token_losses[-length:][1:])
        assert loss == pytest.approx(float(torch.cat(losses).mean()), rel=1e-5)
    assert carried > 30
    other = torch.tensor([list((tmp_path / "other.txt").read_bytes())])
    with torch.no_grad():
        losses_N = model(other, labels=other, output_token_losses=True).token_losses[0]
    # Each sequence begins with a token that nothing predicts.
    predicted_N = torch.arange(len(losses_N)) % WIDTH != 0
    assert metrics["eval_loss"] == pytest.approx(float(losses_N[predicted_N].mean()), rel=1e-5)


def test_a_resumed_run_goes_on_with_the_memory_of_its_checkpoint(run: RunConfig, monkeypatch) -> None:
    whole = train(run)
    parts = replace(run, output_dir=f"{run.output_dir}-parts")
    honest = SegmentTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 10:
            raise KeyboardInterrupt
        return honest(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(parts)
    resumed = train(replace(parts, resume=True))
    one, other = (load_file(result.output_dir / "checkpoint-24/model.safetensors") for result in (whole, resumed))
    for name, weight in one.items():
        assert torch.equal(weight, other[name]), name


def test_rows_go_on_where_they_ended_and_texts_change_their_order() -> None:
    later_E = np.ones(100, bool)
    later_E[[0, 7, 30, 31, 80]] = False
    sampler = ConsecutiveSequences(later_E, 4, seed=3, epoch=lambda: 0)
    order_KB = np.array(list(sampler)).reshape(-1, 4)
    assert len(sampler) == order_KB.size == 100
    assert sorted(order_KB.reshape(-1)) == list(range(100))
    for row_K in order_KB.T:
        breaks = row_K[1:][np.diff(row_K) != 1]
        # A row changes only to the beginning of a text.
        assert not later_E[breaks].any()
    again = list(ConsecutiveSequences(later_E, 4, seed=3, epoch=lambda: 1))
    assert sorted(again) == list(range(100, 200))
    assert [visit - 100 for visit in again] != order_KB.reshape(-1).tolist()


@pytest.mark.parametrize("changes", [{"objective": "masked", "causal": False}, {"dataset": "listops_short"}])
def test_only_a_language_model_of_texts_carries_memory(run: RunConfig, changes) -> None:
    with pytest.raises(UserError, match="carry_memory needs texts that are read in order"):
        replace(run, **changes).check()


def test_the_place_of_a_sequence_is_no_label_to_learn(run: RunConfig) -> None:
    with pytest.raises(UserError, match="texts has no labels to learn; use `rmaat pretrain`"):
        train(replace(run, objective="labels", causal=False, carry_memory=False, retention_schedule="ltp"))
