"""A run from config to result files, resumed, stopped, used."""

import json
import math
import shutil
import sys
from dataclasses import fields, replace
from functools import wraps
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from transformers import AutoModelForSequenceClassification

from rmaat.cli.main import main
from rmaat.errors import TrainingDivergedError, UserError
from rmaat.models import RmaatForSequenceClassification
from rmaat.tasks import load
from rmaat.training.checkpoints import last_usable_checkpoint
from rmaat.training.config import RunConfig
from rmaat.training.data import RunData, draw_examples
from rmaat.training.finished_run import open_run
from rmaat.training.inference import predict
from rmaat.training.run import build_model, build_trainer, evaluate, train
from rmaat.training.trainer import SegmentTrainer


def test_a_run_leaves_the_files_of_the_contract(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    for key in [
        "test_accuracy",
        "eval_accuracy",
        "steps",
        "train_tokens_per_second",
        "peak_memory_bytes",
        "num_parameters",
        "seed",
    ]:
        assert key in metrics, key
    assert metrics["steps"] == 8
    assert 0 <= metrics["test_accuracy"] <= 1
    assert metrics["data"]["test"]["examples"] == 40
    assert (metrics["data_seed"], metrics["generator_seed"], metrics["input_type"]) == (5, 0, "tokens")
    run = RunConfig.from_yaml(finished / "run.yaml")
    assert run.max_steps == 8
    assert run.calcium_exponent == 0.25
    loaded = AutoModelForSequenceClassification.from_pretrained(finished)
    assert metrics["num_parameters"] == sum(p.numel() for p in loaded.parameters())
    for name in ("curves.png", "confusion.png", "reliability.png"):
        assert Image.open(finished / name).size[0] > 500


def test_measurements_are_those_of_every_test_example(finished, listops_dir):
    """Classified one at a time, outside the trainer; 40 examples don't fill batches of 16."""
    run = open_run(finished)
    data = load("listops_short", data_dir=listops_dir, max_seq_len=192)["test"].with_format("torch")
    answers = [int(run.model(x["input_ids"].long()[None]).logits.argmax()) for x in data]
    labels = data["labels"][:].tolist()
    for metrics in (json.loads((finished / "metrics.json").read_text()), evaluate(run)):
        assert metrics["test_accuracy"] == pytest.approx(accuracy_score(labels, answers))
        assert metrics["test_f1_macro"] == pytest.approx(f1_score(labels, answers, average="macro", zero_division=0))
        assert metrics["test_confusion"] == confusion_matrix(labels, answers, labels=range(10)).tolist()
        assert [of_class["support"] for of_class in metrics["test_classes"].values()] == [
            labels.count(label) for label in range(10)
        ]
        assert sum(metrics["test_reliability"]["count"]) == 40


def numbers_of(value, place=""):
    """Yield the numbers in dicts and lists, each with its place."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_of(inner, f"{place}/{key}")
    else:
        yield place, value


def test_an_evaluation_prints_a_table_and_writes_its_files(finished, tmp_path, capsys):
    assert main(["evaluate", "--model", str(finished), "--output", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    metrics = json.loads((finished / "metrics.json").read_text())
    table = printed[printed.index("precision") :].splitlines()
    row = next(line.split() for line in table if line.startswith("7"))
    scores = metrics["test_classes"]["7"]
    shares = [f"{100 * scores[name]:.2f}%" for name in ("precision", "recall", "f1")]
    assert row == ["7", *shares, str(scores["support"])]
    assert f"macro F1                 {100 * metrics['test_f1_macro']:6.2f}%" in printed
    written = json.loads((tmp_path / "new" / "evaluation.json").read_text())
    assert written.pop("test_notes") == []
    assert dict(numbers_of(written)) == pytest.approx(dict(numbers_of({name: metrics[name] for name in written})))
    for name in ("confusion.png", "reliability.png"):
        assert Image.open(tmp_path / "new" / name).size[0] > 500
        assert str(tmp_path / "new" / name) in printed
    (tmp_path / "file").write_text("")
    assert main(["evaluate", "--model", str(finished), "--output", str(tmp_path / "file")]) == 2
    assert "cannot write to the output folder" in capsys.readouterr().err


def test_a_share_of_the_test_part_is_drawn_and_told(tiny, finished, listops_dir, tmp_path, capsys):
    config = tmp_path / "share.yaml"
    config.write_text(replace(tiny, max_steps=1, eval_steps=1, test_examples=7, data_seed=3).to_yaml())
    assert main(["train", "--config", str(config)]) == 0
    assert "(7 of 40 examples)" in capsys.readouterr().out
    metrics = json.loads((Path(tiny.output_dir) / "metrics.json").read_text())
    assert metrics["test_examples"] == 7
    assert json.loads((finished / "metrics.json").read_text())["test_examples"] == 40
    part = load("listops_short", data_dir=listops_dir)["test"]
    picked = [draw_examples(part, 7, seed)["labels"] for seed in (3, 3, 4)]
    assert picked[0] == picked[1] != picked[2]
    assert metrics["test_majority_accuracy"] == max(map(picked[0].count, picked[0])) / 7


def test_validation_in_training_is_on_drawn_examples(tiny):
    source = RunData.of(replace(tiny, eval_examples=7))
    data = source.load()
    used = build_trainer(source, build_model(source), data).eval_dataset

    def texts(part):
        return {bytes(part[row]["input_ids"]) for row in range(len(part))}

    assert texts(used) == texts(draw_examples(data["validation"], 7, tiny.data_seed))
    assert texts(used) != texts(data["validation"].select(range(7)))


def test_the_config_is_printed_as_the_run_will_hold_it(tiny, tmp_path, capsys):
    path, folder = tmp_path / "given.yaml", tmp_path / "run"
    path.write_text(
        f"model: rmaat\ndataset: listops_short\ndata_dir: {tiny.data_dir}\nbf16: auto\nmax_seq_len: 192\nnum_segments: 3\n"
        f"hidden_size: 16\nnum_hidden_layers: 1\nnum_attention_heads: 2\nmatch_parameters: 9000\n"
    )
    command = ["train", "--config", str(path), "--max_steps", "1", "--output_dir", str(folder)]
    assert main([*command, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert not folder.exists()
    assert main(command) == 0
    assert printed == (folder / "run.yaml").read_text()


def test_a_config_that_contradicts_itself_is_not_printed(capsys):
    assert main(["train", "--print_config", "--resume", "--overwrite"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "exclude each other" in told.err


def test_evaluate_and_predict_use_the_run(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "--model", str(finished)]) == 0
    assert not list(tmp_path.iterdir())
    assert "test accuracy" in capsys.readouterr().out
    text = tmp_path / "a.txt"
    text.write_text("[MAX 3 [MIN 7 1 ] 5 ]")
    assert main(["predict", "--model", str(finished), str(text)]) == 0
    name, label, probability = capsys.readouterr().out.strip().split("\t")
    assert name == str(text)
    assert label in set("0123456789")
    assert 0.1 <= float(probability) <= 1

    class Piped:
        buffer = text.open("rb")

    monkeypatch.setattr(sys, "stdin", Piped())
    assert main(["predict", "--model", str(finished)]) == 0
    assert capsys.readouterr().out.startswith(f"standard input\t{label}\t")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_predictions_on_a_gpu_are_those_on_a_cpu(finished):
    run, text = open_run(finished), ["[MAX 3 [MIN 7 1 ] 5 ]"]
    on_cpu = predict(run, text)
    run.model.to("cuda")
    on_gpu = predict(run, text)
    assert on_gpu.label == on_cpu.label
    assert on_gpu.probabilities == pytest.approx(on_cpu.probabilities, rel=1e-4)


def epoch_tokens(listops_dir: Path) -> int:
    """The tokens of the training part, which is 16 batches of 16: what 16 steps meet."""
    train_part = load("listops_short", data_dir=listops_dir, max_seq_len=192)["train"]
    return sum(len(ids) for ids in train_part["input_ids"])


def test_the_tokens_of_a_run_are_those_of_its_examples(tiny, listops_dir):
    metrics = train(replace(tiny, max_steps=16, eval_steps=16)).metrics
    assert metrics["train_tokens"] == epoch_tokens(listops_dir)
    assert 0 < metrics["training_memory_bytes"] < metrics["peak_memory_bytes"]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_the_run_and_is_named(tiny, monkeypatch, what):
    honest = SegmentTrainer.compute_loss
    name = "rmaat.encoder.blocks.0.expand.weight"

    def spoilt(self, model, *args, **kwargs):
        loss = honest(self, model, *args, **kwargs)
        if self.state.global_step == 5:
            if what == "loss":
                return loss * math.nan
            dict(model.named_parameters())[name].register_hook(lambda grad: grad * math.inf)
        return loss

    monkeypatch.setattr(SegmentTrainer, "compute_loss", spoilt)
    named = "the loss" if what == "loss" else name
    with pytest.raises(TrainingDivergedError, match=f"{named} is not finite at step 6"):
        train(tiny)
    assert last_usable_checkpoint(Path(tiny.output_dir)).name == "checkpoint-4"


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_accumulating_two_batches_is_one_of_twice_the_size(tiny, monkeypatch, smoothing):
    """Of the same examples: the order depends on the size of a batch, and is fixed here."""
    monkeypatch.setattr("rmaat.training.batches.GroupedByLength.__iter__", lambda self: iter(range(len(self))))
    base = replace(tiny, hidden_dropout_prob=0.0, max_steps=2, eval_steps=2, label_smoothing_factor=smoothing)
    weights = []
    for size, accumulated in ((16, 1), (8, 2), (8, 1)):
        run = replace(
            base,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            output_dir=f"{tiny.output_dir}-{size}-{accumulated}",
        )
        assert train(run).metrics["steps"] == 2
        loaded = load_file(Path(run.output_dir) / "model.safetensors")
        weights.append(torch.cat([x.flatten() for x in loaded.values()]))
    whole, two_halves, half = weights
    assert (two_halves - whole).norm() < 0.05 * (half - whole).norm()


def test_the_validation_loss_falls(tiny):
    """Training losses are of other examples in every batch, and would differ without training too."""
    train(replace(tiny, hidden_dropout_prob=0.0, learning_rate=2e-3, max_steps=24, eval_steps=4))
    state = json.loads((Path(tiny.output_dir) / "checkpoint-24" / "trainer_state.json").read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.filterwarnings("ignore:the logits of row")
def test_logits_that_are_not_finite_in_an_evaluation_name_their_example(tiny, straight, monkeypatch):
    """Row 7 of each part is spoilt; an evaluation takes the examples by falling length."""
    parts = load("listops_short", data_dir=tiny.data_dir, max_seq_len=192)
    spoilt = [parts[part][7]["input_ids"] for part in ("validation", "test")]
    honest = RmaatForSequenceClassification.forward

    @wraps(honest)
    def forward(self, input_ids, **kwargs):
        out = honest(self, input_ids, **kwargs)
        for row, ids in enumerate(input_ids):
            if not self.training and any(ids[: len(one)].tolist() == one for one in spoilt):
                out.logits.data[row, 2] = math.nan
        return out

    monkeypatch.setattr(RmaatForSequenceClassification, "forward", forward)
    with pytest.raises(TrainingDivergedError, match="example 7 of the evaluated part are not finite at step 4"):
        train(tiny)
    with pytest.raises(UserError, match="example 7 of the evaluated part are not finite: its values"):
        evaluate(open_run(straight.output_dir))


def test_of_checkpoints_with_equal_accuracy_the_one_with_the_lowest_loss_is_the_best(tiny):
    run = replace(tiny, eval_steps=2, eval_examples=6, hidden_dropout_prob=0.0, learning_rate=2e-3)
    metrics = train(run).metrics
    state = json.loads((Path(run.output_dir) / "checkpoint-12" / "trainer_state.json").read_text())
    reports = [entry for entry in state["log_history"] if "eval_loss" in entry]
    ranked = max(reports, key=lambda entry: (entry["eval_accuracy"], -entry["eval_loss"]))
    ties = [entry for entry in reports if entry["eval_accuracy"] == ranked["eval_accuracy"]]
    assert len(ties) > 1
    assert ranked is not ties[0], "the first of them would be chosen by accuracy alone"
    assert metrics["best_step"] == ranked["step"]


def test_an_existing_run_is_not_overwritten_unless_asked(tiny):
    short = replace(tiny, max_steps=1, eval_steps=1)
    train(short)
    with pytest.raises(UserError, match="already holds a run"):
        train(short)
    train(replace(short, overwrite=True))
    with pytest.raises(UserError, match="exclude each other"):
        train(replace(short, overwrite=True, resume=True))


def test_an_output_folder_that_cannot_be_written_is_refused_before_training(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        train(replace(tiny, output_dir=str(tmp_path / "file" / "run")))


def test_a_full_disk_is_refused_before_training(tiny, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="MiB free, the run needs about"):
        train(tiny)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: (run / "run.yaml").unlink(), "has no run.yaml"),
        (lambda run: (run / "config.json").write_text("{"), "is not JSON"),
        (lambda run: (run / "config.json").write_text('{"model_type": "bert"}'), "of type 'bert'"),
        (lambda run: (run / "model.safetensors").write_bytes(b"xx"), "damaged or not a safetensors"),
        (
            lambda run: save_file({"a": torch.zeros(2)}, run / "model.safetensors"),
            "checkpoint of another model: a is",
        ),
        (
            lambda run: (run / "run.yaml").write_text(
                (run / "run.yaml").read_text().replace("listops_short", "imdb_lra")
            ),
            "checkpoint of another model",
        ),
    ],
)
def test_a_damaged_run_of_an_earlier_version_is_refused(finished, tmp_path, capsys, spoil, said):
    """Its metrics.json has no checksums."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("run.yaml", "config.json", "model.safetensors"):
        (copy / name).write_bytes((finished / name).read_bytes())
    (copy / "metrics.json").write_text("{}")
    spoil(copy)
    assert main(["evaluate", "--model", str(copy)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def flip_last_bit(path: Path) -> None:
    """Change a file without changing its size."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run: flip_last_bit(run / "model.safetensors"), "the content of model.safetensors has changed"),
        (lambda run: flip_last_bit(run / "config.json"), "the content of config.json has changed"),
        (lambda run: (run / "config.json").write_text("{"), "config.json has 1 bytes instead of"),
        (lambda run: (run / "metrics.json").unlink(), "is not a finished run: it has no metrics.json"),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json is not readable"),
        (lambda run: (run / "metrics.json").write_text("[]"), "metrics.json is not readable"),
        (lambda run: (run / "metrics.json").write_text('{"files": [3]}'), "metrics.json is not readable"),
    ],
)
def test_a_run_whose_files_differ_from_its_record_is_refused(finished, tiny, tmp_path, capsys, spoil, said):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    spoil(copy)
    (tmp_path / "text.txt").write_text("[MAX 3 4 ]")
    for command in (["evaluate", "--model", str(copy)], ["predict", "--model", str(copy), str(tmp_path / "text.txt")]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    with pytest.raises(UserError, match=said):
        train(replace(tiny, init_from=str(copy)))


def test_bad_texts_are_refused_by_name(finished, tmp_path, capsys):
    files = {"empty.txt": b"", "other.txt": b"[MAX 3 x ]", "bytes.txt": b"\xff\xfe"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert main(["predict", "--model", str(finished), str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err
    assert main(["predict", "--model", str(finished), str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hidden_act": "gelo"}, "did you mean 'gelu'"),
        ({"seed": 2**32}, "seed must be a whole number from 0 to 4294967295"),
        ({"per_device_train_batch_size": 300}, "fewer than one batch of 300"),
    ],
)
def test_what_would_fail_later_is_refused_before(tiny, settings, said):
    with pytest.raises(UserError, match=said):
        train(replace(tiny, **settings))
    assert not Path(tiny.output_dir).exists()


def test_a_named_model_of_a_given_size_is_trained_stored_and_used(tiny):
    """The stored run config holds what was resolved, and the run can be opened and resumed by it."""
    run = RunConfig.resolved({**asdict_given(tiny), "model": "performer", "match_parameters": 3500, "max_steps": 4})
    done = train(run)
    assert done.metrics["model"] == "performer"
    assert abs(done.metrics["num_parameters"] - 3500) < 350
    stored = RunConfig.from_yaml(done.output_dir / "run.yaml")
    assert (stored.model, stored.attention_type, stored.num_segments) == ("performer", "performer", 1)
    finished = open_run(done.output_dir)
    assert finished.model.config.intermediate_size == stored.intermediate_size != tiny.intermediate_size
    assert evaluate(finished)["test_accuracy"] == done.metrics["test_accuracy"]
    again = train(replace(stored, resume=True))
    assert again.metrics["num_parameters"] == done.metrics["num_parameters"]


def asdict_given(run: RunConfig) -> dict[str, object]:
    """The settings of a run that differ from their defaults and that no model without recurrence fixes."""
    plain = RunConfig()
    given = {f.name: getattr(run, f.name) for f in fields(run) if getattr(run, f.name) != getattr(plain, f.name)}
    given.pop("num_segments")
    return given


@pytest.mark.parametrize(
    "settings",
    [{}, {"retention_schedule": "learned"}, {"retention_form": "gate"}, {"associative_memory": True}],
    ids=str,
)
def test_several_processes_expect_the_parameters_that_single_segments_do_not_use(tiny, settings):
    source = RunData.of(replace(tiny, **settings))
    model = build_model(source)
    model(torch.ones(2, 8, dtype=torch.long), labels=torch.tensor([0, 1])).loss.backward()
    unused = any(parameter.grad is None for parameter in model.parameters())
    assert build_trainer(source, model, source.load()).args.ddp_find_unused_parameters == unused == bool(settings)


@pytest.mark.parametrize("metric", ["f1_macro", pytest.param("auc", marks=pytest.mark.slow)])
def test_the_best_checkpoint_and_early_stopping_go_by_any_metric(texts, metric):
    run = replace(texts, curriculum=False, metric_for_best_model=metric, early_stopping_patience=2)
    run = replace(run, max_steps=40, eval_steps=2, learning_rate=2e-2, save_total_limit=30)
    metrics = train(run).metrics
    state = json.loads((Path(run.output_dir) / f"checkpoint-{metrics['steps']}" / "trainer_state.json").read_text())
    reports = [entry for entry in state["log_history"] if "eval_loss" in entry]
    best = max(reports, key=lambda entry: (entry[f"eval_{metric}"], -entry["eval_loss"]))
    assert metrics["best_step"] == best["step"]
    assert metrics[f"eval_{metric}"] == best[f"eval_{metric}"]
    assert metrics["steps"] == min(best["step"] + 2 * 2, 40)


def test_an_area_that_is_not_known_is_refused_before_training(texts, tmp_path):
    rows = [{"text": f"v{i}", "label": "a"} for i in range(8)]
    (tmp_path / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = replace(texts, curriculum=False, metric_for_best_model="auc")
    with pytest.raises(UserError, match="validation examples of every class, and 'b' has none"):
        train(run)
    assert not Path(run.output_dir).exists()
