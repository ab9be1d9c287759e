"""The curriculum over the number of segments: its batches, its levels, its runs."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rmaat.cli.main import main
from rmaat.models import RmaatForSequenceClassification
from rmaat.training.batches import GroupedBySegments
from rmaat.training.curriculum import Curriculum
from rmaat.training.data import RunData
from rmaat.training.finished_run import open_run
from rmaat.training.run import evaluate, train
from rmaat.training.trainer import SegmentTrainer

SEGMENTS_E = np.random.default_rng(0).choice([1, 2, 3, 5, 8], 103, p=[0.3, 0.3, 0.2, 0.17, 0.03])
LEVELS = [[0, 1], [9, 2], [31, 5], [31, 7], [50, 8]]


def members_of(number: int) -> np.ndarray:
    """The examples with a number of segments."""
    return np.flatnonzero(np.equal(SEGMENTS_E, number))


def plain_batches(size: int, seed: int, count: int) -> Iterator[list[int]]:
    """The batches of a run from its beginning, with lists in place of arithmetic."""
    shares_I = np.random.default_rng(seed).random(count)
    waiting: dict[int, list[int]] = {int(number): [] for number in np.unique(SEGMENTS_E)}
    passes: Counter[int] = Counter()
    for batch, share in enumerate(shares_I):
        maximum = [most for first, most in LEVELS if first <= batch][-1]
        allowed = [number for number in waiting if number <= maximum]
        number = allowed[int(share * len(allowed))]
        while len(waiting[number]) < size:
            order = np.random.default_rng([seed, number, passes[number]])
            waiting[number] += (order.permutation(members_of(number)) + passes[number] * len(SEGMENTS_E)).tolist()
            passes[number] += 1
        yield waiting[number][:size]
        del waiting[number][:size]


def epoch_batches(
    epoch: int, levels: Sequence[Sequence[int]] = LEVELS, size: int = 8, seed: int = 3
) -> list[list[int]]:
    """One epoch of the sampler, 12 batches."""
    sampler = GroupedBySegments(SEGMENTS_E, size, seed, lambda: epoch, lambda: levels)
    order = list(sampler)
    assert len(order) == len(sampler) == len(SEGMENTS_E) // size * size
    return np.reshape(order, (-1, size)).tolist()


def test_batches_are_those_of_a_plain_reference_from_any_epoch_on():
    expected = list(plain_batches(8, 3, 12 * 6))
    for epoch in range(6):
        assert epoch_batches(epoch) == expected[12 * epoch : 12 * (epoch + 1)], epoch
    assert epoch_batches(0, seed=4) != expected[:12]


def test_a_batch_has_one_number_of_segments_and_at_most_the_maximum():
    visits = [batch for epoch in range(20) for batch in epoch_batches(epoch)]
    assert len(np.unique(visits)) == np.size(visits)
    batches = (np.array(visits) % len(SEGMENTS_E)).tolist()
    for index, batch in enumerate(batches):
        (number,) = set(SEGMENTS_E[batch])
        assert number <= [most for first, most in LEVELS if first <= index][-1]
    for number in np.unique(SEGMENTS_E):
        members = set(members_of(number).tolist())
        met = [example for batch in batches if SEGMENTS_E[batch[0]] == number for example in batch]
        passes = [met[start : start + len(members)] for start in range(0, len(met), len(members))]
        assert len(passes) > 2
        assert all(set(one) == members for one in passes[:-1])
        assert passes[0] != passes[1]


def test_numbers_of_segments_are_drawn_equally_often():
    batches = [batch for epoch in range(200) for batch in epoch_batches(epoch, [[0, 8]])]
    counts = Counter(int(SEGMENTS_E[batch[0] % len(SEGMENTS_E)]) for batch in batches)
    assert sorted(counts) == [1, 2, 3, 5, 8]
    for count in counts.values():
        assert abs(count - len(batches) / 5) < 4 * (len(batches) * 0.2 * 0.8) ** 0.5


def test_a_maximum_raised_in_the_middle_holds_from_the_next_batch_drawn():
    levels = [[0, 1]]
    sampler = GroupedBySegments(SEGMENTS_E, 8, 3, lambda: 0, lambda: levels)
    order = []
    for example in sampler:
        order.append(example)
        if len(order) in (20, 40):
            levels.append([sampler.drawn, 2 + len(order) // 8])
    assert levels == [[0, 1], [3, 4], [5, 7]]
    assert np.reshape(order, (-1, 8)).tolist() == epoch_batches(0, levels)


def ladder(numbers: Sequence[int]) -> list[int]:
    """The maxima of a curriculum that passes each test by nothing."""
    curriculum = Curriculum(np.array(numbers), np.array(numbers), threshold=0.9)
    levels = [curriculum.lowest]
    while (following := curriculum.after(levels[-1], 0.9)) > levels[-1]:
        assert curriculum.after(levels[-1], 0.9 - 1e-9) == levels[-1]
        levels.append(following)
    return levels


def test_the_maximum_rises_by_half_at_the_threshold_and_not_below():
    assert ladder([*range(16, 0, -1), 2, 2]) == [1, 2, 3, 4, 6, 9, 13, 16]
    assert ladder([2, 5, 6]) == [2, 5, 6]
    assert ladder([1, 1000]) == [1, 1000]


def levels_of(checkpoint: Path) -> list[list[int]]:
    """The levels in a checkpoint."""
    return json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["Curriculum"]


def assert_equal_runs(one: Path, other: Path) -> None:
    """Of their last checkpoints, weights and levels to the bit."""
    weights, others = (load_file(folder / "model.safetensors") for folder in (one, other))
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name
    assert levels_of(one) == levels_of(other)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_resumed_run_has_the_levels_and_the_weights_of_an_uninterrupted_one(texts, monkeypatch, workers):
    """24 batches are an epoch of 8 steps; the maximum rises before the stop and after it, in the second and third epoch."""
    texts = replace(texts, dataloader_num_workers=workers)
    whole = train(texts)
    honest = SegmentTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 14:
            raise KeyboardInterrupt
        return honest(self, *args, **kwargs)

    monkeypatch.setattr(SegmentTrainer, "training_step", interrupted)
    parts = replace(texts, output_dir=f"{texts.output_dir}-parts")
    with pytest.raises(KeyboardInterrupt):
        train(parts)
    monkeypatch.undo()
    resumed = train(replace(parts, resume=True))
    assert_equal_runs(whole.output_dir / "checkpoint-20", resumed.output_dir / "checkpoint-20")
    assert resumed.metrics["train_tokens"] == whole.metrics["train_tokens"]
    levels = levels_of(whole.output_dir / "checkpoint-20")
    assert [most for _, most in levels] == [1, 2, 3, 4, 6, 9]
    # The loader is a batch ahead, and each worker two more, but not beyond an epoch.
    ahead = 1 + 2 * workers
    assert [first for first, _ in levels] == [0, *(min(3 * s + ahead, -(-s // 8) * 24) for s in (4, 8, 12, 16, 20))]
    assert whole.metrics["curriculum_levels"] == levels
    # What reached the model is what the history says.
    source = RunData.of(texts)
    lengths = source.lengths(source.load()["train"])
    epochs = iter(range(3))
    sampler = GroupedBySegments(-(-lengths // 8), 4, texts.seed, lambda: next(epochs), lambda: levels)
    order = [*sampler, *sampler, *sampler]
    assert whole.metrics["train_tokens"] == lengths[np.array(order[: 20 * 3 * 4]) % len(lengths)].sum()


def test_the_level_is_tested_on_the_validation_examples_up_to_the_maximum(texts, capsys):
    """Counted one example at a time, outside the trainer."""
    texts = replace(texts, max_steps=8, hidden_dropout_prob=0.0)
    train(texts)
    assert "on at most 2 segments" in capsys.readouterr().err
    folder = Path(texts.output_dir)
    data = RunData.of(texts).load()["validation"].with_format("torch")
    reports = json.loads((folder / "checkpoint-8" / "trainer_state.json").read_text())["log_history"]
    reports = {entry["step"]: entry for entry in reports if "eval_accuracy" in entry}
    for step, level in ((4, 1), (8, 2)):
        model = RmaatForSequenceClassification.from_pretrained(folder / f"checkpoint-{step}").eval()
        right = {i: bool(model(x["input_ids"].long()[None]).logits.argmax() == x["labels"]) for i, x in enumerate(data)}
        short = [i for i, x in enumerate(data) if -(-len(x["input_ids"]) // 8) <= level]
        assert 0 < len(short) < len(right)
        assert reports[step]["eval_segments"] == level
        assert reports[step]["eval_level_accuracy"] == pytest.approx(np.mean([right[i] for i in short]))
        assert reports[step]["eval_accuracy"] == pytest.approx(np.mean(list(right.values())))
    # A finished run is measured on any test part, also one whose examples have one length.
    (folder.parent / "test.jsonl").write_text('{"text": "bbbb", "label": "b"}\n')
    assert evaluate(open_run(folder))["test_examples"] == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--num_segments 1", "curriculum needs examples with different numbers of segments"),
        ("--model transformer", "curriculum needs examples with different numbers of segments"),
        ("--curriculum_threshold 0", "curriculum_threshold must be a number above 0 and at most 1, not 0"),
        ("--curriculum_threshold 1.01", "curriculum_threshold must be a number above 0 and at most 1, not 1.01"),
        ("--max_seq_len 2048 --num_segments 2", "each training example of listops_short has 1;"),
        ("--max_seq_len 192 --num_segments 64 --eval_examples 1", "raise eval_examples"),
    ],
)
def test_mistakes_give_one_line_and_status_2(flags, said, listops_dir, tmp_path, capsys):
    command = ["train", "--curriculum", "--dataset", "listops_short", "--data_dir", str(listops_dir)]
    assert main([*command, "--output_dir", str(tmp_path / "run"), *flags.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()
