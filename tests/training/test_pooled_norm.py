"""What `pooled_norm` evaluates by, against the features themselves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.training.checkpoints import seal
from rmaat.training.data import RunData, draw_examples
from rmaat.training.finished_run import open_run
from rmaat.training.pooled_norm import measure_statistics
from rmaat.training.run import train


def assert_statistics_of(model, pooled):
    norm = model.pooled_norm
    for found, wanted in ((norm.running_mean, pooled.mean(0)), (norm.running_var, pooled.var(0))):
        assert (found - wanted).norm() <= 1e-5 * wanted.norm()


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_checkpoint_holds_the_statistics_of_its_own_weights(tiny, ema_decay):
    """At a rate so high that running averages would be those of another model."""
    run = replace(tiny, pooled_norm=True, learning_rate=3e-2, max_steps=8, ema_decay=ema_decay)
    train(run)
    source = RunData.of(run)
    sample = draw_examples(source.load()["train"], 512, run.data_seed)
    for step in (4, 8):
        model = RmaatForSequenceClassification.from_pretrained(Path(run.output_dir) / f"checkpoint-{step}").eval()
        batch = source.collator()([sample[row] for row in range(len(sample))])
        with torch.no_grad():
            pooled = model.rmaat(batch["input_ids"], batch["attention_mask"]).pooled
        assert_statistics_of(model, pooled)


@pytest.mark.parametrize("training", [False, True])
def test_both_towers_count_and_the_mode_is_left_as_it_was(training):
    torch.manual_seed(0)
    config = RmaatConfig(
        vocab_size=16, num_labels=2, hidden_size=16, num_attention_heads=2, max_seq_len=64, num_segments=2
    )
    config.pooled_norm = config.two_towers = True
    model = RmaatForSequenceClassification(config).train(training)
    batches = [{name: torch.randint(0, 16, (rows, 40)) for name in ("input_ids", "other_input_ids")} for rows in (5, 3)]
    measure_statistics(model, batches)
    assert model.training is training
    model.eval()
    with torch.no_grad():
        pooled = torch.cat([model.rmaat(ids).pooled for batch in batches for ids in batch.values()])
    assert_statistics_of(model, pooled)
    # The last of two segments holds 8 of the 40 tokens, and one memory token.
    assert model.pooled_positions == 9


@pytest.mark.slow
def test_a_run_stored_before_the_number_of_positions_is_still_of_use(tiny):
    """Measured, begun from, and resumed where it had ended."""
    run = replace(tiny, pooled_norm=True, max_steps=4)
    first = train(run)
    folder = first.output_dir
    for path in (folder / "model.safetensors", folder / "checkpoint-4" / "model.safetensors"):
        weights = load_file(path)
        del weights["pooled_positions"]
        save_file(weights, path, {"format": "pt"})
    # Earlier versions did not record checksums.
    (folder / "metrics.json").write_text("{}")
    seal(folder / "checkpoint-4")
    assert open_run(folder).model.pooled_positions == 0
    train(replace(run, init_from=str(folder), output_dir=f"{folder}-next", max_steps=1))
    assert train(replace(run, resume=True)).metrics["steps"] == 4
