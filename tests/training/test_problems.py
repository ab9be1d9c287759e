"""Several labels and numbers: metrics against scikit-learn, losses against loops, and whole runs."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit
from sklearn import metrics as reference
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import binary_cross_entropy_with_logits
from transformers import pipeline

from rmaat import RmaatForSequenceClassification
from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.models.classification import RmaatClassifierOutput
from rmaat.recipes import recipe_layers
from rmaat.training.calibration import fitted_temperature
from rmaat.training.config import RunConfig
from rmaat.training.explanation import explain
from rmaat.training.finished_run import open_run
from rmaat.training.inference import predict
from rmaat.training.label_loss import LabelLoss
from rmaat.training.problems import PROBLEMS, MultiLabel

MULTI, NUMBER = "multi_label_classification", "regression"
SETS, NUMBERS = PROBLEMS[MULTI], PROBLEMS[NUMBER]


def sets_of(seed: int, examples: int, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated logits, and sets that are drawn from their probabilities."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(examples, labels)) - 1
    return logits, (rng.uniform(size=logits.shape) < expit(logits)).astype(np.uint8)


@pytest.mark.parametrize("threshold", [0.5, 0.2])
def test_metrics_of_sets_are_those_of_scikit_learn(threshold):
    logits, labels = sets_of(0, 200)
    labels[:, 3] = 0
    answers, problem = expit(logits) > threshold, MultiLabel(threshold)
    np.testing.assert_array_equal(problem.correct(logits, labels), (answers == labels).all(1))
    summary = problem.summary(logits, labels, list("abcd"))
    assert summary["f1_micro"] == pytest.approx(reference.f1_score(labels, answers, average="micro"))
    assert summary["f1_macro"] == pytest.approx(reference.f1_score(labels, answers, average="macro", zero_division=0))
    assert summary["exact_match"] == pytest.approx(reference.accuracy_score(labels, answers))
    assert summary["auc"] == pytest.approx(reference.roc_auc_score(labels[:, :3], logits[:, :3], average="macro"))
    assert summary["classes"]["d"]["auc"] is None
    for index, scores in enumerate(list(summary["classes"].values())[:3]):
        one = (labels[:, index], answers[:, index])
        assert scores["precision"] == pytest.approx(reference.precision_score(*one))
        assert scores["recall"] == pytest.approx(reference.recall_score(*one))
        assert scores["f1"] == pytest.approx(reference.f1_score(*one))
        assert scores["support"] == labels[:, index].sum()
    # The error over all pairs of an example and a label.
    p, y = expit(logits).ravel(), labels.ravel()
    bins = np.ceil(p * 15)
    error = sum(abs((y - p)[bins == k].sum()) for k in range(16)) / len(p)
    assert summary["calibration_error"] == pytest.approx(error)
    json.dumps(summary)


def test_the_threshold_of_sets_reaches_nearly_the_best_f1():
    logits, labels = sets_of(1, 20_000)
    scores = [reference.f1_score(labels, expit(logits) > t, average="micro") for t in np.linspace(0.05, 0.95, 181)]
    problem = SETS.with_threshold(logits, labels)
    assert problem.threshold == pytest.approx(max(scores) / 2, abs=1e-3)
    assert problem.metrics(logits, labels)["f1_micro"] > max(scores) - 1e-3 > SETS.metrics(logits, labels)["f1_micro"]
    assert SETS.with_threshold(logits, np.zeros_like(labels)) == SETS


def test_metrics_of_numbers_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    true = 100 + 5 * rng.normal(size=50)
    predicted = (true + rng.normal(size=50)).astype(np.float32)
    summary = NUMBERS.summary(predicted[:, None], true, ["label"])
    assert summary["mae"] == pytest.approx(reference.mean_absolute_error(true, predicted))
    assert summary["rmse"] == pytest.approx(reference.root_mean_squared_error(true, predicted))
    assert summary["r2"] == pytest.approx(reference.r2_score(true, predicted))
    assert summary["pearson"] == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    assert sorted(summary["points"]["true"]) == sorted(true.tolist())
    constant = NUMBERS.summary(predicted[:, None], np.full(50, 3.0), ["label"])
    assert (constant["r2"], constant["pearson"]) == (None, None)
    json.dumps(summary)


def test_checkpoints_are_ranked_by_what_is_better():
    for problem, metric, better, worse in (
        (NUMBERS, "mae", 1.0, 2.0),
        (NUMBERS, "rmse", 1e-9, 2e-9),
        (NUMBERS, "r2", 0.5, -3.0),
        (NUMBERS, "loss", 0.1, 0.2),
        (SETS, "f1_micro", 0.5, 0.4),
    ):
        ranks = [problem.rank(metric, {metric: x}, x if metric == "loss" else 1.0) for x in (better, worse)]
        assert ranks[0] > ranks[1], metric
    # Equal scores are told apart by the loss.
    assert SETS.rank("exact_match", {"exact_match": 1.0}, 0.1) > SETS.rank("exact_match", {"exact_match": 1.0}, 0.2)


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_the_temperature_of_sets(scale):
    logits, labels = sets_of(2, 20_000)
    loss = SETS.temperature_loss((scale * logits).astype(np.float32), labels)
    assert fitted_temperature(loss, 20_000, 20_000) == pytest.approx(scale, rel=0.03)
    # Few examples: a search over the formula, with a right and a wrong answer more for each label.
    logits, labels = sets_of(3, 9)

    def mean_loss(temperature):
        p = expit(logits / temperature)
        sure = np.maximum(p, 1 - p).mean(0)
        prior = (np.log(sure) + np.log(1 - sure)).mean() / 9
        return -np.mean(np.where(labels, np.log(p), np.log(1 - p))) - prior

    searched = minimize_scalar(mean_loss, bounds=(0.05, 50), method="bounded").x
    assert fitted_temperature(SETS.temperature_loss(logits, labels), 9, 9) == pytest.approx(searched, rel=1e-3)


def test_weights_of_labels_are_those_of_scikit_learn():
    _, labels = sets_of(4, 60)
    labels[:, 2] = 1
    weights = SETS.balanced_weights(labels, 4)
    for index in (0, 1, 3):
        expected = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels[:, index])
        np.testing.assert_allclose(weights[:, index], expected, rtol=1e-6)
    np.testing.assert_array_equal(weights[:, 2], 1)


def test_the_loss_of_sets_has_the_weights_of_present_and_absent_labels():
    logits, labels = (torch.from_numpy(x) for x in sets_of(5, 6))
    weights = np.array([[0.5, 1, 2, 3], [4, 5, 6, 7]], np.float32)
    loss = LabelLoss(MULTI, class_weights=weights)(RmaatClassifierOutput(logits=logits), {"labels": labels.float()})
    total = 0.0
    for row, sets in zip(logits, labels, strict=True):
        for index, (z, y) in enumerate(zip(row, sets, strict=True)):
            total += weights[int(y), index] * binary_cross_entropy_with_logits(z, y.double()).item()
    assert loss.item() == pytest.approx(total / 24, rel=1e-6)


WORDS = {"rain": 3.0, "bread": 10.0, "wind": -4.0}


def write(folder: Path, problem: str) -> dict[str, str]:
    """Write texts of words, whose labels are the words or the sum of their numbers."""
    rng = np.random.default_rng(0)
    paths = {}
    for part, count in (("train", 160), ("test", 40)):
        rows = []
        for i in range(count):
            words = [word for word in WORDS if rng.uniform() < 0.5]
            filler = rng.choice(["and", "the", "then", *words * 3], 8).tolist()
            label = 1000 + sum(WORDS[word] for word in words) if problem == NUMBER else words
            rows.append({"text": f"{part} {i} {' '.join([*words, *filler])}", "label": label})
        paths[part] = folder / f"{part}.jsonl"
        paths[part].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {f"{part}_file": str(path) for part, path in paths.items()}


SETTINGS = (
    "--max_seq_len 96 --num_segments 3 --hidden_size 16 --num_hidden_layers 1 --intermediate_size 16 "
    "--max_steps 150 --eval_steps 50 --per_device_train_batch_size 16 --learning_rate 1e-2 --segment_loss_weight 0.3 "
    "--early_stopping_patience 9"
)


@pytest.fixture(scope="module", params=[MULTI, NUMBER])
def run(request, tmp_path_factory) -> Path:
    """A finished run by the recipe of the problem type, with a loss after every segment."""
    folder = tmp_path_factory.mktemp("problem")
    files = [item for pair in write(folder, request.param).items() for item in (f"--{pair[0]}", pair[1])]
    recipe = "files_multi_label" if request.param == MULTI else "files_regression"
    more = ["--class_weights", "balanced"] if request.param == MULTI else []
    arguments = ["train", "--recipe", recipe, *files, *SETTINGS.split(), *more, "--output_dir", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run"


def test_a_run_learns_and_stores_its_results(run, capsys, tmp_path):
    metrics = json.loads((run / "metrics.json").read_text())
    config = json.loads((run / "config.json").read_text())
    sets = metrics["problem_type"] == MULTI
    assert config["problem_type"] == metrics["problem_type"]
    for name in ("curves.png", "reliability.png" if sets else "predictions.png"):
        assert (run / name).stat().st_size > 10_000
    assert not (run / "confusion.png").exists()
    if sets:
        assert metrics["test_f1_micro"] > 0.85 > metrics["test_commonest_f1_micro"] + 0.1
        assert metrics["test_tfidf_f1_micro"] > 0.9
        assert len(metrics["calibration"]["temperatures"]) > 1
        assert 0.4 < config["label_threshold"] == metrics["calibration"]["label_threshold"] <= 0.5
        assert metrics["calibration"]["by_length"][0]["f1_micro"] == metrics["test_f1_micro"]
    else:
        train = [json.loads(line)["label"] for line in (run.parent / "train.jsonl").read_text().splitlines()]
        # The mean of train without its held-out tenth.
        assert config["label_mean"] == pytest.approx(np.mean(train), abs=1)
        assert config["label_std"] == pytest.approx(np.std(train), rel=0.1)
        assert metrics["test_mae"] < metrics["test_mean_mae"] / 2
        assert metrics["test_r2"] > 0.7
        assert metrics["test_tfidf_mae"] < metrics["test_mean_mae"]
        # The loss is in units of the variance of train.
        assert metrics["test_loss"] == pytest.approx((metrics["test_rmse"] / config["label_std"]) ** 2, rel=1e-3)
    card = (run / "README.md").read_text()
    assert ("micro F1 on test" if sets else "mean absolute error on test") in card
    assert main(["evaluate", "--model", str(run), "--output", str(tmp_path / "evaluation")]) == 0
    out = capsys.readouterr().out
    assert ("exact match" if sets else "Pearson's correlation") in out
    evaluated = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    for name, value in evaluated.items():
        if name in metrics:
            assert (
                value == pytest.approx(metrics[name], rel=1e-4) if isinstance(value, float) else metrics[name] == value
            )


def test_predictions(run, capsys, tmp_path):
    """The reference is the model of transformers, called on the ids of the run's tokenizer."""
    finished = open_run(run)
    model = RmaatForSequenceClassification.from_pretrained(run).eval()
    text = "rain and bread"
    ids = torch.from_numpy(finished.source.task.encode(text).astype(np.int64))[None]
    (tmp_path / "a.txt").write_text(text)
    sets = finished.source.info.problem_type == MULTI
    with torch.no_grad():
        outputs = model(ids).logits[0]
    classify = pipeline("text-classification", str(run), top_k=None)
    theirs = {row["label"]: row["score"] for row in classify([text])[0]}
    prediction = predict(finished, [text])
    for suffix in ("jsonl", "csv"):
        output = ["--output", str(tmp_path / f"out.{suffix}")]
        assert main(["predict", "--model", str(run), str(tmp_path / "a.txt"), *output]) == 0
    capsys.readouterr()
    assert main(["predict", "--model", str(run), str(tmp_path / "a.txt")]) == 0
    fields = capsys.readouterr().out.rstrip("\n").split("\t")[1:]
    record = json.loads((tmp_path / "out.jsonl").read_text())
    with (tmp_path / "out.csv").open() as file:
        (cells,) = csv.DictReader(file)
    if sets:
        probabilities = outputs.sigmoid().tolist()
        names = finished.source.info.label_names
        assert prediction.probabilities == pytest.approx(probabilities, rel=1e-4)
        assert theirs == pytest.approx(dict(zip(names, probabilities, strict=True)), rel=1e-4)
        threshold = model.config.label_threshold
        chosen = [p for p in sorted(probabilities, reverse=True) if p > threshold]
        assert set(prediction.labels) == {name for name, p in zip(names, probabilities, strict=True) if p > threshold}
        assert prediction.labels
        assert fields == ["|".join(prediction.labels), "|".join(f"{p:.4f}" for p in chosen)]
        assert record["labels"] == list(prediction.labels)
        assert record["probabilities"] == pytest.approx(dict(zip(names, probabilities, strict=True)), rel=1e-4)
        assert cells["labels"] == "|".join(prediction.labels)
        assert float(cells["probability_wind"]) == pytest.approx(probabilities[names.index("wind")], rel=1e-4)
    else:
        assert prediction.value == pytest.approx(outputs.item(), rel=1e-5)
        assert prediction.value == pytest.approx(1005, abs=15)
        assert theirs == {"label": pytest.approx(outputs.item(), rel=1e-5)}
        assert [float(fields[0]), record["value"], float(cells["value"])] == pytest.approx(
            [prediction.value] * 3, rel=1e-5
        )


def test_explanations(run, capsys, tmp_path):
    finished = open_run(run)
    text = "rain and bread " * 20
    explanation = explain(finished, text)
    assert len(explanation.segments) > 1
    sets = finished.source.info.problem_type == MULTI
    whole = predict(finished, [text])
    outputs = whole.probabilities if sets else (whole.value,)
    assert explanation.segments[-1].outputs == pytest.approx(outputs, rel=1e-4)
    assert explanation.output == pytest.approx(max(outputs), rel=1e-4)
    start = 0.5 if sets else finished.model.config.label_mean
    assert sum(x.change for x in explanation.segments) == pytest.approx(explanation.output - start, abs=1e-3)
    (tmp_path / "a.txt").write_text(text)
    output = tmp_path / "out"
    assert main(["explain", "--model", str(run), str(tmp_path / "a.txt"), "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert ("%" in out.splitlines()[0]) == sets
    assert ("points:" in out) == sets
    stored = json.loads((output / "explanation.json").read_text())["segments"][-1]
    assert stored["probabilities" if sets else "values"] == pytest.approx(outputs, rel=1e-4)
    assert (output / "explanation.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"problem_type": NUMBER}, "excludes calibration, which needs classes; set calibration: false"),
        ({"problem_type": NUMBER, "calibration": False}, "'accuracy' is none of problem_type 'regression'"),
        ({"recipe": "files_regression", "class_weights": "balanced"}, "excludes class_weights"),
        ({"recipe": "files_regression", "label_smoothing_factor": 0.1}, "excludes label_smoothing_factor"),
        ({"recipe": "files_regression", "curriculum": True}, "excludes curriculum"),
        ({"recipe": "files_multi_label", "label_smoothing_factor": 0.1}, "needs one class for each example"),
        ({"recipe": "files_multi_label", "metric_for_best_model": "rmse"}, "'rmse' is none of"),
        ({"metric_for_best_model": "mae"}, "'mae' is none of problem_type 'single_label_classification'"),
        ({"problem_type": "ranking"}, "problem_type 'ranking' is not one of its values"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings, said, capsys):
    with pytest.raises(UserError, match=said):
        RunConfig.resolved({"recipe": "files", **settings}).check()
    flags = [item for name, value in settings.items() for item in (f"--{name}", json.dumps(value).strip('"'))]
    flags = flags if "recipe" in settings else ["--recipe", "files", *flags]
    assert main(["train", *flags, "--train_file", "a.jsonl"]) == 2
    assert said in capsys.readouterr().err


def test_the_recipes_are_allowed():
    for name in ("files_multi_label", "files_regression"):
        assert recipe_layers(name)[0]["dataset"] == "files"
        RunConfig.resolved({"recipe": name}).check()


def test_another_problem_type_may_begin_with_a_finished_run(run, tmp_path):
    """The last layer begins anew, because the labels are others."""
    other = NUMBER if open_run(run).source.info.problem_type == MULTI else MULTI
    files = write(tmp_path, other)
    recipe = "files_multi_label" if other == MULTI else "files_regression"
    before = open_run(run).config
    settings = {name: getattr(before, name) for name in ("max_seq_len", "num_segments", "hidden_size")}
    settings |= {"num_hidden_layers": 1, "intermediate_size": 16, "init_from": str(run), "max_steps": 2}
    config = RunConfig.resolved({"recipe": recipe, **files, **settings, "output_dir": str(tmp_path / "run")})
    from rmaat.training.run import train

    metrics = train(replace(config, eval_steps=2)).metrics
    assert metrics["problem_type"] == other


def test_a_set_is_right_as_a_whole():
    logits, labels = sets_of(6, 50)
    expected = [all((z > 0) == bool(y) for z, y in zip(*row, strict=True)) for row in zip(logits, labels, strict=True)]
    assert SETS.correct(logits, labels).tolist() == expected
    assert 0 < sum(expected) < 50
