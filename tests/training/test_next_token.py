"""Runs with answers at many positions: measured as by logits, resumed, learned, and refused where they have no sense."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import rmaat
from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.models import RmaatForCausalLM
from rmaat.models.size import count_parameters
from rmaat.tasks import load
from rmaat.tasks.base import Counts
from rmaat.tasks.generate import generate
from rmaat.training.config import RunConfig
from rmaat.training.curriculum import Curriculum
from rmaat.training.data import RunData
from rmaat.training.finished_run import open_run
from rmaat.training.problems import PROBLEMS
from rmaat.training.run import Result, evaluate, train
from rmaat.training.trainer import SegmentTrainer

NEXT_TOKEN = "next_token_prediction"
SEGMENT = 4


def answers_run(folder: Path, **settings) -> RunConfig:
    """Return a run on mqar with 2 pairs in 4 segments of 4 tokens; the pairs fill the first one."""
    run = RunConfig.resolved({
        "recipe": "mqar", "data_dir": str(folder), "output_dir": str(folder / "run"),
        "sequence_tokens": 16, "pairs": 2, "vocabulary": 16, "max_seq_len": 16, "num_segments": 4,
        "hidden_size": 32, "intermediate_size": 32, "associative_size": 8, "warmup_steps": 2,
        "max_steps": 6, "eval_steps": 3, "eval_examples": 0, "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 16, **settings,
    })  # fmt: skip
    task = RunData.of(run).task
    if not task.is_there(folder):
        generate(task, folder, 0, Counts(train=4000, validation=50, test=70))
        # Examples of the test have different numbers of questions, and the batches do.
        path = task.sources(folder)[2]
        arrays = dict(np.load(path))
        arrays["labels"][: 40 * 16][np.arange(40 * 16) % 16 > 8] = -100
        np.savez(path, **arrays)
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return train(answers_run(tmp_path_factory.mktemp("answers")))


def test_the_measurements_are_those_of_the_logits(trained: Result) -> None:
    """Batches of 16 with a rest, by float64 logits of whole examples and a loop over the questions."""
    model = RmaatForCausalLM.from_pretrained(trained.output_dir, dtype=torch.float64).eval()
    run = open_run(trained.output_dir)
    assert isinstance(run.model, RmaatForCausalLM)
    right, asked, losses, answers = [0] * 4, [0] * 4, [], []
    for row in load(run.source.task, trained.output_dir.parent)["test"]:
        with torch.no_grad():
            logits = model(torch.tensor([row["input_ids"]])).logits[0].numpy()
        for n, label in enumerate(row["labels"]):
            if label != -100:
                before = logits[n - 1]
                asked[(n - 1) // SEGMENT] += 1
                right[(n - 1) // SEGMENT] += before.argmax() == label
                losses.append(np.log(np.exp(before).sum()) - before[label])
                answers.append(label)
    metrics = trained.metrics
    assert metrics["problem_type"] == NEXT_TOKEN
    assert 60 < metrics["test_answers"] == len(answers) < 140
    assert metrics["test_accuracy"] == pytest.approx(sum(right) / len(answers))
    assert metrics["test_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert asked[0] == 0
    assert metrics["test_segments"] == [
        {"accuracy": r / a if a else None, "answers": a} for r, a in zip(right, asked, strict=True)
    ]
    assert metrics["test_majority_accuracy"] == max(map(answers.count, answers)) / len(answers)
    assert metrics["data"]["train"]["answers"] == 8000
    assert "eval_segments" not in metrics
    # Examples are whole, so a check with other batches gives the same.
    other = evaluate(replace(run, source=replace(run.source, run=replace(run.config, per_device_eval_batch_size=7))))
    for name in ("test_accuracy", "test_segments", "test_answers"):
        assert other[name] == metrics[name]
    assert other["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-5)


def test_the_loss_weighs_answers_and_not_batches() -> None:
    """Examples with 1, 3 and 0 questions in 2 segments of 4 tokens, against a loop."""
    problem, config = PROBLEMS[NEXT_TOKEN], rmaat.RmaatConfig(max_seq_len=8, num_segments=2)
    generator = torch.Generator().manual_seed(0)
    losses_BN, correct_BN = torch.rand(3, 6, generator=generator), torch.rand(3, 6, generator=generator) < 0.5
    labels_BN = torch.full((3, 6), -100)
    for row, place in ((0, 4), (1, 1), (1, 3), (1, 5), (2, 0)):
        labels_BN[row, place] = 7
    outputs, labels = problem.collected((losses_BN, correct_BN), labels_BN, config)
    # Label 4 belongs to token 3, which is in the first segment; nothing predicts label 0.
    assert labels.tolist() == [[1, 0], [2, 1], [0, 0]]
    places = [(0, 4), (1, 1), (1, 3), (1, 5)]
    assert problem.loss(outputs.numpy(), labels.numpy()) == pytest.approx(
        np.mean([losses_BN[place].item() for place in places])
    )
    right = [correct_BN[place].item() for place in places]
    assert problem.metrics(outputs.numpy(), labels.numpy()) == {"accuracy": sum(right) / 4}
    shares = problem.correct(outputs.numpy(), labels.numpy())
    assert shares.tolist() == [right[0], pytest.approx(sum(right[1:]) / 3), 0]
    level = Curriculum(np.array([1, 2, 2]), np.array([2, 1, 1]), 0.9).accuracy(shares, 1)
    assert level == pytest.approx((shares[1] + shares[2]) / 2)


def test_it_evaluates_from_the_command_line(trained: Result, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--model", str(trained.output_dir)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["test", "accuracy", f"{100 * trained.metrics['test_accuracy']:.2f}%", "(70", "examples)"]
    assert out[1].startswith("always commonest answer")
    assert [line.split()[0] for line in out[-4:]] == ["segment", "2", "3", "4"]
    card = (trained.output_dir / "README.md").read_text()
    assert "model = AutoModelForCausalLM.from_pretrained(" in card
    assert f"| test | 70 | {trained.metrics['test_answers']} answers |" in card


@pytest.mark.parametrize("command", ["predict", "explain", "serve"])
def test_verbs_for_whole_examples_name_what_to_use(
    trained: Result, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text("k1 v1")
    if command == "serve":
        pytest.importorskip("gradio")
    run = str(trained.output_dir)
    arguments = [run, "--port", "0"] if command == "serve" else ["--model", run, str(tmp_path / "text.txt")]
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err
    assert "answers at many positions of mqar, and has no label for a text; measure it with `rmaat evaluate" in error
    assert f"RmaatForCausalLM.from_pretrained('{run}')" in error
    for opened in (run, open_run(trained.output_dir)):
        with pytest.raises(UserError, match="has no label for a text"):
            rmaat.predict(opened, ["k1 v1"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "rmaat"}, "only a causal model predicts: set causal: true, or model: rmaat_causal"),
        (
            {"label_smoothing_factor": 0.1},
            "excludes label_smoothing_factor, which needs a classifier of whole examples",
        ),
        ({"class_weights": "balanced"}, "set class_weights: 'none'$"),
        ({"segment_loss_weight": 0.5}, "excludes segment_loss_weight"),
        ({"masked_loss_weight": 0.5}, "excludes masked_loss_weight"),
        ({"calibration": True}, "excludes calibration"),
        ({"pooled_norm": True}, "excludes pooled_norm"),
        ({"ngram_size": 2}, "set ngram_size: null"),
        (
            {"metric_for_best_model": "f1_macro"},
            f"is none of problem_type '{NEXT_TOKEN}', whose are 'accuracy', 'loss'",
        ),
        ({"input_type": "values"}, "the ids of mqar are symbols"),
        ({"max_seq_len": 8, "num_segments": 2}, "truncates questions: an example of mqar has 16 tokens"),
    ],
)
def test_settings_without_a_meaning_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    small = {"recipe": "mqar", "sequence_tokens": 16, "pairs": 2, "max_seq_len": 16, "num_segments": 4}
    run = RunConfig.resolved({**small, "output_dir": str(tmp_path)}, settings)
    run.check()
    with pytest.raises(UserError, match=message):
        RunData.of(run)


def test_only_generated_tasks_have_this_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "files", "--train_file", "x.csv", "--problem_type", NEXT_TOKEN]) == 2
    assert "problem_type" in capsys.readouterr().err


def test_the_width_that_a_number_of_parameters_needs_is_that_of_the_causal_model(tmp_path: Path) -> None:
    run = answers_run(tmp_path, match_parameters=20_000)
    source = RunData.of(run).with_matched_parameters()
    model = RmaatForCausalLM(rmaat.RmaatConfig(**source.model_settings()))
    number = sum(p.numel() for p in model.parameters())
    assert count_parameters(source.model_settings()) == number
    assert number == pytest.approx(20_000, rel=0.02)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(
    trained: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = answers_run(tmp_path)
    honest = SegmentTrainer.training_step

    def interrupted(self, *args, **kwargs):
        if self.state.global_step == 4:
            raise KeyboardInterrupt
        return honest(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentTrainer, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    resumed = train(replace(run, resume=True))
    one, other = (RmaatForCausalLM.from_pretrained(x.output_dir).state_dict() for x in (trained, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    for name in ("test_accuracy", "test_loss", "test_segments", "eval_loss"):
        assert resumed.metrics[name] == trained.metrics[name]
    log = json.loads((resumed.output_dir / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "eval_accuracy" in entry] == [3, 6]
    assert all(math.isfinite(entry["eval_loss"]) for entry in log if "eval_loss" in entry)


@pytest.mark.slow
def test_a_few_pairs_are_learned_by_memory_alone(tmp_path: Path) -> None:
    """The pairs fill the first segment, so nothing else tells a later one the values; a guess has 12.5%."""
    settings = {"max_steps": 400, "eval_steps": 100, "per_device_train_batch_size": 64, "learning_rate": 5e-3}
    assert train(answers_run(tmp_path, **settings)).metrics["test_accuracy"] > 0.9
    without = answers_run(tmp_path, **settings, associative_memory=False, num_memory_tokens=0, overwrite=True)
    assert train(without).metrics["test_accuracy"] < 0.3
