"""What a grid consists of: the grammar of models, the presets, mistakes."""

import pytest

from rmaat.errors import UserError
from rmaat.grid.cells import Cell, Variant, expand, make_cells, parse_variant
from rmaat.grid.presets import GRIDS, shortened
from rmaat.grid.published import FIGURES, TASKS
from rmaat.presets import MODELS


def test_a_variant_is_read_with_the_types_of_the_settings():
    variant = parse_variant("rmaat[ num_segments=4, astro_mem = false,calcium_exponent=5e-1,readout=first]")
    changes = {"astro_mem": False, "calcium_exponent": 0.5, "num_segments": 4, "readout": "first"}
    assert variant == Variant("rmaat", tuple(changes.items()))
    assert str(variant) == "rmaat[astro_mem=false,calcium_exponent=0.5,num_segments=4,readout=first]"
    assert parse_variant(str(variant)) == variant
    assert parse_variant("rmt") == Variant("rmt")


def test_each_variant_is_named_once():
    variants = expand(["rmt", "rmaat[macro_model={rate: 1}]", "models", "rmt[ norm_first=true]"])
    labels = [str(variant) for variant in variants]
    assert labels[0] == "rmt"
    assert len(set(labels)) == len(labels) == len(MODELS.names()) + 2


def test_data_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (cell,) = make_cells(GRIDS["smoke"], models=["rmt"], data_dir="data")
    assert cell.settings["data_dir"] == str((tmp_path / "data").resolve())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rmatt", "unknown model 'rmatt'; did you mean 'rmaat'"),
        ("ablation", "did you mean 'ablations'"),
        ("rmaat[astro_men=false]", "did you mean 'astro_mem'"),
        ("rmaat[astro_mem]", "not key=value"),
        ("rmaat[astro_mem=]", "not key=value"),
        ("rmaat[astro_mem=maybe]", "^'rmaat[astro_mem=maybe]': astro_mem is 'maybe'; it must be true or false$"),
        ("rmaat[num_segments=many]", "^'rmaat[num_segments=many]': num_segments is 'many'; it must be a whole number$"),
        ("rmaat[bf16=maybe]", "bf16 is 'maybe'; it must be true, false or 'auto'"),
        ("rmaat[seed=3]", "which the grid sets"),
        ("rmaat[recipe=listops]", "which the grid sets"),
        ("rmaat[astro_mem=false,astro_mem=true]", "twice"),
        ("rmaat[astro_mem=false", "write name or name"),
        ("rmaat[]", "write name or name"),
        ("", "write name or name"),
    ],
)
def test_what_is_no_variant_is_refused(text, said):
    with pytest.raises(UserError, match=said.replace("[", r"\[")):
        parse_variant(text)


@pytest.mark.parametrize(
    "name", [name if name == "cpu" else pytest.param(name, marks=pytest.mark.slow) for name in GRIDS.names()]
)
def test_every_preset_is_valid_for_all_models_and_ablations(name):
    grid = GRIDS[name]
    cells = make_cells(grid, models=["models", *grid.models], seeds=1)
    assert {cell.task for cell in cells} == set(grid.tasks)
    assert {cell.model for cell in cells} >= set(MODELS.names())
    for cell in cells:
        run = cell.run_config()
        assert run.dataset == cell.task
        assert run.max_steps % run.eval_steps == 0, "a run ends with an evaluation"
    make_cells(grid, models=["ablations"], seeds=1)


def test_the_presets_hold_the_benchmark_at_its_lengths():
    assert set(GRIDS["paper"].tasks) == set(TASKS)
    lengths = {"listops": 2048, "imdb_lra": 4096, "aan": 8192, "cifar10": 1024, "pathfinder32": 1024}
    assert {task: settings["max_seq_len"] for task, settings in GRIDS["paper"].tasks.items()} == lengths
    assert {s["max_seq_len"] // s["num_segments"] for s in GRIDS["paper"].tasks.values()} == {512}
    assert set(GRIDS["cpu"].tasks) == {"listops", "imdb_lra", "aan_lite", "cifar10"}
    for settings in GRIDS["cpu"].tasks.values():
        assert (settings["hidden_size"], settings["num_hidden_layers"]) == (64, 2)


def test_published_figures_are_of_models_that_can_be_named():
    for model, task in {key for figures in FIGURES.values() for key in figures}:
        assert task in TASKS
        if model.partition("[")[0] in MODELS.names():
            assert str(parse_variant(model)) == model


def test_a_shorter_run_keeps_its_shares():
    settings = {"max_steps": 1000, "warmup_steps": 100, "eval_steps": 250, "eval_examples": 2000}
    assert shortened(settings, 100) == {"max_steps": 100, "warmup_steps": 10, "eval_steps": 25, "eval_examples": 2000}
    assert shortened(settings, 1)["eval_steps"] == 1
    assert shortened(settings, None) == settings


def test_cells_are_named_once_and_the_first_seed_comes_first():
    cells = make_cells(GRIDS["cpu"], ["listops", "cifar10", "listops"], ["rmt", "rmaat", "rmt"], 2)
    assert [cell.key for cell in cells] == [
        (task, model, seed) for seed in (0, 1) for task in ("listops", "cifar10") for model in ("rmt", "rmaat")
    ]


def test_a_folder_is_within_the_grids_and_one_a_cell(tmp_path):
    names = ["rmaat", "rmaat[readout=first]", "rmaat[hidden_act=../../..]"]
    folders = [Cell("listops", name, 0, "cpu", {}, {}).folder(tmp_path) for name in names]
    assert len({folder.resolve() for folder in folders}) == 3
    for folder in folders:
        assert folder.resolve().parent.parent == tmp_path / "cells" / "listops"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"tasks": []}, "--tasks asks for none"),
        ({"models": []}, "--models asks for none"),
        ({"seeds": 0}, "--seeds asks for none"),
        ({"seeds": 10**8}, "--seeds must be at most 1,000, not 100,000,000"),
        ({"max_steps": 0}, "--max_steps must be >= 1"),
        ({"tasks": ["listop"]}, "unknown task 'listop'; did you mean 'listops'"),
        ({"tasks": ["mnist"]}, "the preset 'cpu' has no settings for mnist"),
        ({"models": ["rmaat[num_segments=7]"]}, "rmaat.num_segments=7. on aan_lite: num_segments 7 does not divide"),
    ],
)
def test_a_grid_that_cannot_be_run_is_refused(asked, said):
    with pytest.raises(UserError, match=said):
        make_cells(GRIDS["cpu"], **asked)
