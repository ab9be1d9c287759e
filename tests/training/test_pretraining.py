"""Pre-training on masked tokens, a masked loss beside the labels, and training from the result."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.models import RmaatForMaskedLM
from rmaat.training.checkpoints import checkpoint_at
from rmaat.training.finished_run import open_run
from rmaat.training.run import train


@pytest.fixture
def pretraining(tiny):
    return replace(tiny, objective="masked", mask_share=0.3, hidden_dropout_prob=0.1)


def weights(folder):
    return load_file(Path(folder) / "model.safetensors")


def test_a_pre_trained_run_has_a_loss_and_no_test(pretraining):
    result = train(pretraining)
    metrics = json.loads((result.output_dir / "metrics.json").read_text())
    assert "test_accuracy" not in metrics
    assert "eval_accuracy" not in metrics
    # 17 symbols: chance is their entropy, below log 17.
    assert 0 < metrics["eval_loss"] < 3.2
    assert (result.output_dir / "curves.png").stat().st_size > 10_000
    model = RmaatForMaskedLM.from_pretrained(result.output_dir)
    assert torch.equal(model.state_dict()["rmaat.first_memory"], weights(result.output_dir)["rmaat.first_memory"])
    with pytest.raises(UserError, match="has no classifier"):
        open_run(result.output_dir)


def test_it_learns_to_predict_masked_tokens(pretraining, tmp_path):
    (tmp_path / "two.txt").write_text("ab" * 6000)
    run = replace(
        pretraining,
        dataset="texts",
        train_file=str(tmp_path / "two.txt"),
        max_seq_len=64,
        num_segments=2,
        short_conv_size=3,
        max_steps=40,
        eval_steps=20,
        logging_steps=20,
        learning_rate=2e-2,
        hidden_dropout_prob=0.0,
    )
    result = train(run)
    # Guessing costs log 2 = 0.69, and is needed where both neighbours are masked, at 0.3^2 of the places.
    assert result.metrics["eval_loss"] < 0.2
    history = json.loads((checkpoint_at(result.output_dir, 40) / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    # Evaluations mask the same positions each time.
    assert result.metrics["eval_loss"] == pytest.approx(min(losses), rel=1e-4)


def test_a_resumed_run_is_bitwise_the_same(pretraining, tmp_path):
    run = replace(pretraining, lr_scheduler_type="constant_with_warmup")
    train(replace(run, max_steps=8))
    train(replace(run, resume=True))
    straight = train(replace(run, output_dir=str(tmp_path / "straight")))
    one, two = weights(run.output_dir), weights(straight.output_dir)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_begins_with_the_pre_trained_weights(pretraining, tiny, tmp_path):
    before = train(replace(pretraining, output_dir=str(tmp_path / "before")))
    run = replace(tiny, init_from=str(before.output_dir), learning_rate=1e-9, warmup_steps=0)
    result = train(run)
    stored, trained = weights(before.output_dir), weights(result.output_dir)
    assert "classifier.weight" in trained
    assert not any("masked_head" in name for name in trained)
    name = "rmaat.encoder.blocks.0.expand.weight"
    torch.testing.assert_close(stored[name], trained[name], rtol=1e-5, atol=1e-6)
    spent = result.metrics["init_from_training"]
    assert spent["objective"] == "masked"
    assert spent["train_tokens"] == before.metrics["train_tokens"]


def test_a_masked_loss_beside_the_labels(tiny, straight):
    run = replace(tiny, masked_loss_weight=0.5, mask_share=0.3)
    result = train(run)
    assert any("masked_head" in name for name in weights(result.output_dir))
    # Nothing is masked in evaluations: a run that begins with these weights has the same accuracy.
    again = replace(run, init_from=str(result.output_dir), output_dir=tiny.output_dir + "2", learning_rate=1e-9)
    assert train(again).metrics["test_loss"] == pytest.approx(result.metrics["test_loss"], rel=1e-4)
    name = "rmaat.encoder.blocks.0.expand.weight"
    assert not torch.equal(weights(result.output_dir)[name], weights(straight.output_dir)[name])


@pytest.mark.parametrize("two_towers", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_pairs_with_an_average_of_the_weights(pretraining, tmp_path, two_towers):
    rows = [{"text": f"one {i} " * 9, "second": f"two {i} " * 4, "label": "ab"[i % 2]} for i in range(64)]
    for part in ("train", "test"):
        lines = "".join(json.dumps({**row, "text": part + row["text"]}) + "\n" for row in rows)
        (tmp_path / f"{part}.jsonl").write_text(lines)
    run = replace(
        pretraining,
        dataset="files",
        train_file=str(tmp_path / "train.jsonl"),
        test_file=str(tmp_path / "test.jsonl"),
        other_text_column="second",
        two_towers=two_towers,
        pooled_norm=True,
        ema_decay=0.9,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=8,
        max_steps=4,
        eval_steps=2,
    )
    first = train(replace(run, output_dir=str(tmp_path / "first")))
    assert first.metrics["eval_loss"] > 0
    labelled = replace(run, objective="labels", mask_share=None, init_from=str(first.output_dir))
    assert train(labelled).metrics["init_from_training"]["steps"] == 4


def test_own_texts_are_pre_trained_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / f"{name}.txt").write_text(f"{name} long enough text. " * 200)
    small = "--max_seq_len 64 --num_segments 2 --hidden_size 8 --num_hidden_layers 1 --num_attention_heads 2"
    steps = "--max_steps 4 --eval_steps 2 --per_device_train_batch_size 4"
    command = f"pretrain --dataset texts --train_file texts {small} {steps}"
    assert main(command.split()) == 0
    assert json.loads((tmp_path / "runs" / "texts-pretrained" / "metrics.json").read_text())["objective"] == "masked"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretrain --dataset listops_short --curriculum true", "excludes curriculum"),
        ("pretrain --dataset listops_short --objective labels", "learns no labels"),
        ("pretrain --dataset listops_short --objective causal", "set causal: true"),
        ("pretrain --dataset listops_short --objective causal --causal true", "choose one of 'streaming'"),
        ("train --dataset listops_short --mask_share 0.2", "masked_loss_weight is 0"),
        ("train --dataset texts --train_file x.txt", "no labels to learn"),
        ("pretrain --dataset listops_short --mask_share 0", "mask_share"),
    ],
)
def test_refusals(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.txt").write_text("a text " * 100)
    assert main(words.split()) == 2
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == 1
