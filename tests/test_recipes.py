"""The recipes: what they hold, and that each trains every model."""

from dataclasses import asdict, fields, replace
from functools import cache
from importlib import resources

import pytest
import torch

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.grid.presets import GRIDS
from rmaat.models import RmaatConfig, RmaatForSequenceClassification
from rmaat.presets import MODELS, resolve
from rmaat.recipes import recipe_layers, recipe_names, recipe_summary
from rmaat.settings import ModelSettings
from rmaat.tasks import TASKS
from rmaat.training.config import RunConfig

DEFAULTS = {field.name: field.default for field in fields(RunConfig)}
BATCH, VOCAB_SIZE, NUM_LABELS = 2, 7, 3


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_is_short_and_holds_no_default_and_nothing_that_a_model_fixes(name):
    layers = recipe_layers(name)
    settings = resolve(*layers)
    model = settings.get("model")
    below = resolve(*layers[:-1], {} if model is None else {"model": model})
    assert settings["dataset"] in TASKS
    assert name.rpartition("/")[2].startswith(settings["dataset"])
    assert len(layers[-1]) <= 18
    for key, value in layers[-1].items():
        assert key in DEFAULTS
        if key not in ("dataset", "model"):
            assert value != below.get(key, DEFAULTS[key]), key
        if model is None:
            assert key not in MODELS["rmaat"].fixed, key
    summary = recipe_summary(name)
    assert summary[0].isupper()
    assert "#" not in summary
    # A summary is one whole sentence of the comment, so it does not end within a clause.
    rest = _comment(name).partition(summary)[2]
    assert rest.startswith(".")


def _comment(name):
    text = resources.files("rmaat.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return " ".join(line[2:] for line in text.splitlines() if line.startswith("# "))


def test_the_summary_is_the_first_sentence_of_a_comment_of_several_lines(monkeypatch):
    text = "# One\n# sentence of 0.5 lines, and more. Another.\n# Third.\nkey: 1\n# no\n"
    monkeypatch.setattr("rmaat.recipes._text", lambda name: text)
    assert recipe_summary("any") == "One sentence of 0.5 lines, and more"


def test_a_recipe_may_change_another():
    hard, easy = (RunConfig.resolved({"recipe": name}) for name in ("pathfinder32", "pathfinder32_easy"))
    changes = {"recipe": "pathfinder32", "dataset": "pathfinder32", "init_from": "runs/pathfinder32_intermediate"}
    assert hard == replace(easy, **changes, output_dir="runs/pathfinder32")


def test_the_grids_read_the_recipes():
    for grid in (GRIDS[name] for name in GRIDS.names()):
        for recipe, (task, settings) in zip(grid.recipes, grid.tasks.items(), strict=True):
            run = RunConfig.resolved({"recipe": recipe})
            assert run.dataset == task
            assert {key: getattr(run, key) for key in settings} == settings


def test_an_unknown_recipe_is_answered_with_the_nearest(capsys):
    with pytest.raises(UserError, match="unknown recipe 'listop'; did you mean 'listops'"):
        RunConfig.resolved({"recipe": "listop"})
    assert main(["train", "--recipe", "../setup"]) == 2
    assert "unknown recipe '../setup'" in capsys.readouterr().err


def test_a_stored_run_outlives_its_recipe(tmp_path):
    run = replace(RunConfig.resolved({"recipe": "listops", "model": "rmt"}), recipe="gone")
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "run.yaml") == run


def test_the_output_folder_is_named_by_recipe_and_model():
    def folder(*layers):
        return RunConfig.resolved(*layers).output_dir

    assert folder({"recipe": "stories"}) == "runs/stories"
    assert folder({"recipe": "paper/listops"}, {"model": "rmt"}) == "runs/paper-listops-rmt"
    assert folder({"dataset": "mnist"}) == "runs/mnist"
    assert folder({"recipe": "listops"}, {"output_dir": "here"}) == "here"


def test_the_list_of_recipes_names_all(capsys):
    assert main(["list", "recipes"]) == 0
    listing = capsys.readouterr().out
    for name in recipe_names():
        assert f"\n{name} " in listing


@pytest.mark.parametrize("model", MODELS.names())
def test_every_recipe_trains_every_model_for_a_step(model):
    for recipe in recipe_names():
        run = RunConfig.resolved({"recipe": recipe}, {"model": model})
        if run.objective == "causal" and not run.causal:
            # Such a model has no causal form, or must be asked for it.
            with pytest.raises(UserError, match="set causal: true"):
                run.check()
            continue
        run.check()
        assert run.model == model
        for key, value in MODELS[model].fixed.items():
            if RunConfig.resolved({"recipe": recipe}).model != model:
                assert getattr(run, key) == value, (recipe, key)
        train_one_step(tiny(run))


def tiny(run):
    """Return the model's settings at a small size, as a hashable key."""
    segments = min(run.num_segments, 3)
    size = {
        "max_seq_len": 4 * segments * run.patch_size,
        "num_segments": segments,
        "num_memory_tokens": min(run.num_memory_tokens, 3),
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "associative_size": 2,
        "classifier_hidden_size": run.classifier_hidden_size and 8,
        "num_landmarks": 2,
        "linformer_size": 2,
        "state_size": 2,
    }
    names = {field.name for field in fields(ModelSettings)}
    return tuple(sorted((key, value) for key, value in (asdict(run) | size).items() if key in names))


@cache
def train_one_step(settings):
    torch.manual_seed(0)
    model = RmaatForSequenceClassification(RmaatConfig(**dict(settings), vocab_size=VOCAB_SIZE, num_labels=NUM_LABELS))
    length, labels = model.config.max_seq_len, torch.tensor([0, 2])
    if model.config.input_type == "values":
        inputs = {"input_values": torch.randn(BATCH, length)}
    else:
        inputs = {"input_ids": torch.randint(VOCAB_SIZE, (BATCH, length))}
        if model.config.two_towers:
            inputs["other_input_ids"] = torch.randint(VOCAB_SIZE, (BATCH, length))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [x.detach().clone() for x in model.parameters()]
    loss = model(**inputs, labels=labels).loss
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert any(not torch.equal(x, y) for x, y in zip(model.parameters(), before, strict=True))
