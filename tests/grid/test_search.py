"""Searches whose trials compute nothing, beside Optuna itself; a tiny real one."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.grid.outcomes import STATUS
from rmaat.grid.search import RANDOM_TRIALS, make_search, propose, run_search
from rmaat.grid.search_results import best_trials, search_tables, write_results
from rmaat.grid.space import parse_space
from rmaat.training.config import RunConfig, read_settings
from rmaat.training.run_folder import METRICS

optuna = pytest.importorskip("optuna", reason="needs `pip install 'rmaat[search]'`")

RECIPE = "smoke/listops_short"
SPACE = (
    *("learning_rate=1e-4:1e-1", "weight_decay=0:0.9"),
    *("num_memory_tokens=1:9", "readout=mean,last"),
)


def height(values):
    """A smooth function of a trial's values, at most 1."""
    distance = (math.log10(values["learning_rate"]) + 2.5) ** 2 + values.get("weight_decay", 0)
    return 1 / (1 + distance + (values.get("readout") == "mean"))


@pytest.fixture
def search(listops_dir):
    def search(models=("rmaat",), trials=8, space=SPACE, **settings):
        settings = {"data_dir": str(listops_dir), **settings}
        return make_search(RECIPE, models, trials, settings, space)

    return search


@pytest.fixture
def ran(monkeypatch, outcome, leave):
    """The trials that were run; `ran.outcome(trial)` gives what becomes of one."""

    class Ran(list):
        def outcome(self, trial):
            return outcome(trial, eval_accuracy=height(trial.values))

    ran = Ran()

    def run_cell(trial, folder, environment, stopped):
        ran.append((trial.model, trial.number))
        ended = ran.outcome(trial)
        leave(ended, folder)
        return ended

    monkeypatch.setattr("rmaat.grid.executors.run_cell", run_cell)
    return ran


def values_of(outcomes, model="rmaat"):
    return [outcome.cell.values for outcome in outcomes if outcome.cell.model == model]


def test_proposals_are_those_of_optuna(search, ran, tmp_path):
    values = values_of(run_search(search(seed=3), tmp_path, workers=1))
    distributions = {
        "learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "weight_decay": optuna.distributions.FloatDistribution(0.0, 0.9),
        "num_memory_tokens": optuna.distributions.IntDistribution(1, 9),
        "readout": optuna.distributions.CategoricalDistribution(["mean", "last"]),
    }
    study = optuna.create_study(direction="maximize")
    # The recipe's readout is running_mean, which is outside the space.
    rest = {"weight_decay": 0.01, "num_memory_tokens": 1, "readout": "running_mean"}
    assert values[0] == {"learning_rate": 2e-3, **rest}
    for number in range(1, 8):
        seed = int(np.random.SeedSequence([3, number]).generate_state(1)[0])
        options = {"n_startup_trials": RANDOM_TRIALS, "constant_liar": True}
        study.sampler = optuna.samplers.TPESampler(seed=seed, **options)
        trial = study.ask(distributions)
        assert values[number] == trial.params
        study.tell(trial, height(trial.params))


def test_a_first_trial_inside_the_space_is_learned_from(search, outcome):
    space = parse_space(["learning_rate=1e-4:1e-1"])
    begun = search(space=["learning_rate=1e-4:1e-1"])
    accuracies = {2e-3: 0.9, 1e-4: 0.1, 1e-1: 0.1, 5e-2: 0.1}
    trials = [
        outcome(begun.trial("rmaat", number, {"learning_rate": rate}), eval_accuracy=accuracy)
        for number, (rate, accuracy) in enumerate(accuracies.items())
    ]
    drawn = [propose(space, trials, [0, seed])["learning_rate"] for seed in range(20)]
    without = [propose(space, trials[1:], [0, seed])["learning_rate"] for seed in range(20)]
    near = [sum(5e-4 < rate < 8e-3 for rate in rates) for rates in (drawn, without)]
    assert near[0] > near[1]


def test_models_have_the_same_budget_and_take_turns(search, ran, tmp_path):
    models = ["rmaat", "rmt", "rmaat[astro_mem=false]"]
    outcomes = run_search(search(models, trials=3, max_steps=30), tmp_path, workers=1)
    assert ran == [(model, number) for number in range(3) for model in models]
    for outcome in outcomes:
        run = outcome.cell.run_config()
        assert (run.max_steps, run.warmup_steps, run.eval_steps) == (30, 5, 10)
        assert (run.test_examples, run.seed, run.eval_examples) == (1, 0, 200)
    # With the same seed random trials are the same for each model, so that none is luckier.
    assert values_of(outcomes, "rmt")[1:] == values_of(outcomes, "rmaat")[1:]
    assert len({outcome.cell.folder(tmp_path) for outcome in outcomes}) == 9


def test_settings_of_the_user_stay_as_they_are(search):
    made = search(max_steps=30, warmup_steps=7, learning_rate=5e-3, space=None)
    trial = made.trial("rmaat", 0, made.first["rmaat"])
    run = trial.run_config()
    assert (run.warmup_steps, run.eval_steps, run.learning_rate) == (7, 10, 5e-3)
    assert str(made.space["learning_rate"]) == "0.0005:0.05"


@pytest.mark.parametrize("stop", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(7, marks=pytest.mark.slow)])
def test_an_interrupted_search_goes_on_as_if_undisturbed(search, ran, tmp_path, stop):
    whole = values_of(run_search(search(), tmp_path / "whole", workers=1))
    judge = ran.outcome

    def interrupted(trial):
        if trial.number == stop:
            raise KeyboardInterrupt
        return judge(trial)

    ran.clear()
    ran.outcome = interrupted
    with pytest.raises(KeyboardInterrupt):
        run_search(search(), tmp_path / "stopped", workers=1)
    status = (tmp_path / f"stopped/trials/rmaat/trial-{stop}" / STATUS).read_text()
    assert json.loads(status)["status"] == "begun"
    ran.outcome = judge
    assert values_of(run_search(search(), tmp_path / "stopped", workers=1)) == whole
    assert ran == [("rmaat", number) for number in (*range(stop), stop, *range(stop, 8))]


def test_trials_without_metrics_run_again_with_the_same_values(search, ran, tmp_path, capsys):
    whole = values_of(run_search(search(), tmp_path, workers=1))
    ran.clear()
    folder = tmp_path / "trials" / "rmaat"
    (folder / "trial-5" / METRICS).unlink()
    for number in (6, 7):
        shutil.rmtree(folder / f"trial-{number}")
    assert values_of(run_search(search(), tmp_path, workers=1)) == whole
    assert ran == [("rmaat", 5), ("rmaat", 6), ("rmaat", 7)]
    assert "8 trials, 5 of them finished before" in capsys.readouterr().err
    more = run_search(search(["rmt", "rmaat"], trials=9), tmp_path, workers=1)
    assert values_of(more)[:8] == whole
    assert len(ran) == 3 + 9 + 1


def test_a_begun_trial_keeps_its_values(search, ran, outcome, leave, tmp_path):
    """With several workers another proposal may have been made than one worker would make."""
    made = search(trials=3)
    values = {"learning_rate": 0.03, "weight_decay": 0.5, "num_memory_tokens": 7, "readout": "last"}
    begun = made.trial("rmaat", 1, values)
    leave(outcome(begun, "begun"), begun.folder(tmp_path))
    assert values_of(run_search(made, tmp_path, workers=2))[1] == values


def test_a_failed_trial_is_one_of_optunas_failed_ones(search, outcome):
    made = search(space=["learning_rate=1e-4:1e-1"])
    rates = [2e-3, 1e-4, 1e-1, 5e-2, 1e-3, 3e-3]
    trials = [
        outcome(made.trial("rmaat", number, {"learning_rate": rate}), eval_accuracy=rate)
        for number, rate in enumerate(rates)
    ]
    for status in ("diverged", "failed"):
        failed = outcome(made.trial("rmaat", 6, {"learning_rate": 0.09}), status, "why")
        assert propose(made.space, [*trials, failed], [0, 7]) == propose(made.space, trials, [0, 7])
    running = outcome(made.trial("rmaat", 6, {"learning_rate": 0.09}), "begun")
    assert propose(made.space, [*trials, running], [0, 7]) != propose(made.space, trials, [0, 7])


@pytest.mark.slow
def test_another_space_or_budget_in_the_same_folder_is_refused(search, ran, tmp_path):
    run_search(search(trials=1, max_steps=30), tmp_path, workers=1)
    for settings, message in (
        ({"space": SPACE[:3], "max_steps": 30}, "--space readout mean,last (now None)"),
        ({"max_steps": 60}, "max_steps 30 (now 60)"),
        ({"max_steps": 30, "hidden_size": 16}, "hidden_size 32 (now 16)"),
        ({"max_steps": 30, "seed": 1}, "seed 0 (now 1)"),
    ):
        with pytest.raises(UserError) as refusal:
            run_search(search(trials=1, **settings), tmp_path, workers=1)
        assert message in str(refusal.value)
    assert len(ran) == 1


def test_the_best_is_the_first_of_highest_validation_accuracy(search, ran, outcome, tmp_path):
    accuracies = [0.2, 0.5, 0.5, 0.3]
    ran.outcome = lambda trial: outcome(
        trial, eval_accuracy=accuracies[trial.number], test_accuracy=1 - accuracies[trial.number]
    )
    made = search(["rmaat", "rmt"], trials=4, max_steps=30, hidden_size=16)
    outcomes = run_search(made, tmp_path, workers=2)
    numbers = {model: best.cell.number for model, best in best_trials(outcomes).items()}
    assert numbers == {"rmaat": 1, "rmt": 1}
    files = write_results(made, outcomes, tmp_path)
    assert [file.name for file in files] == ["search.json", "rmaat.yaml", "rmt.yaml", "search.png"]
    assert Image.open(tmp_path / "search.png").size[0] > 800
    stored = json.loads((tmp_path / "search.json").read_text())
    assert {"command", "commit", "machine"} < set(stored)
    assert stored["space"]["learning_rate"] == "0.0001:0.1"
    of_rmt = [trial for trial in stored["trials"] if trial["model"] == "rmt"]
    assert [trial["eval_accuracy"] for trial in of_rmt] == accuracies
    assert stored["trials"][2]["values"] == outcomes[2].cell.values
    assert stored["trials"][2]["seconds"] == 2.0
    assert "test_accuracy" not in (tmp_path / "search.json").read_text()

    file = read_settings(tmp_path / "rmt.yaml")
    assert {"max_steps", "eval_steps", "test_examples", "seed", "output_dir"}.isdisjoint(file)
    budget = {"max_steps": 30, "warmup_steps": 5, "eval_steps": 10, "test_examples": 1}
    places = {"output_dir": "x"}
    trained = RunConfig.resolved(file, budget | places)
    assert asdict(trained) == asdict(RunConfig(**outcomes[3].cell.settings, **places))


def test_a_variant_has_files_of_its_own(search, ran, tmp_path):
    made = search(["rmaat[astro_mem=false]"], trials=1)
    files = write_results(made, run_search(made, tmp_path, workers=1), tmp_path)
    file = read_settings(tmp_path / "rmaat-astro_mem=false.yaml")
    assert files[1].name == "rmaat-astro_mem=false.yaml"
    assert (file["model"], file["astro_mem"]) == ("rmaat", False)
    assert RunConfig.resolved(file).astro_mem is False


def test_without_a_learning_rate_there_is_no_figure(search, ran, tmp_path):
    made = search(trials=1, space=["weight_decay=0:1"], learning_rate=1e-3)
    ran.outcome = lambda trial: pytest.fail("not run")
    (tmp_path / "trials").mkdir()
    files = write_results(made, [], tmp_path)
    assert [file.name for file in files] == ["search.json"]
    assert search_tables(made, [])[1].rows == [["rmaat", "–", "–", "0 of 1", "–"]]


@pytest.fixture
def command(listops_dir, tmp_path):
    """Call `rmaat search` for one model, with more words."""
    begin = f"search --recipe {RECIPE} --models rmaat --trials 3 --workers 1"
    folders = ["--output", str(tmp_path / "out"), "--data_dir", str(listops_dir)]
    return lambda *more: main([*begin.split(), *folders, *more])


def test_only_failed_trials_run_again(command, ran, outcome, tmp_path, capsys):
    judge = ran.outcome
    fates = {1: ("diverged", "NaN"), 2: ("failed", "no room")}

    def judged(trial):
        return outcome(trial, *fates[trial.number]) if trial.number in fates else judge(trial)

    ran.outcome = judged
    assert command() == 1
    printed = capsys.readouterr()
    assert "1 of 3 cells failed, the first, rmaat trial 2 (learning_rate=" in printed.err
    assert "no room; the same command tries them again" in printed.err
    rows = [row for row in printed.out.splitlines() if row.startswith("| rmaat |")]
    first = f"{100 * height({'learning_rate': 2e-3}):.2f}"
    assert [row.split("|")[4].strip() for row in rows[:3]] == [first, "diverged", "failed"]
    assert "): diverged: NaN" in printed.out
    stored = json.loads((tmp_path / "out/search.json").read_text())
    assert [trial["failure"] for trial in stored["trials"]] == [None, "NaN", "no room"]
    ran.clear()
    ran.outcome = judge
    assert command() == 0
    assert ran == [("rmaat", 2)]
    assert (tmp_path / "out/rmaat.yaml").is_file()
    assert "validation accuracy" in capsys.readouterr().err


def test_a_model_without_a_finished_trial_is_named(command, ran, outcome, tmp_path, capsys):
    ran.outcome = lambda trial: outcome(trial, "diverged", "NaN")
    assert command() == 1
    assert "no trial of rmaat finished" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*")) == [".lock", "search.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "--trials must be from 1 to 1,000, not 0"),
        (["--trials", "1001"], "--trials must be from 1 to 1,000, not 1,001"),
        (["--models", "rmatt"], "unknown model 'rmatt'; did you mean 'rmaat'"),
        (["--models", "rmaat[max_steps=3]"], "changes max_steps, which is the same in all trials"),
        (["--models", "rmt[learning_rate=0.1]"], "changes learning_rate, which --space has"),
        (["--recipe", "paper/listop"], "unknown recipe 'paper/listop'; did you mean 'paper/listops'"),
        (["--space", "learning_rate=1e-2:1e-4"], "the low end 0.01 must be below the high end"),
        (["--space", "learning_rte=1e-2,1e-4"], "did you mean 'learning_rate'"),
        (["--space", "num_segments=2,7"], "rmaat on listops_short: num_segments 7 does not divide"),
        (["--models", "transformer", "--space", "num_segments=2,3"], "fixes num_segments 1"),
        (["--space", "calcium_exponent=-1:1"], "calcium_exponent must be"),
        (["--max_steps", "0"], "--max_steps must be >= 1"),
        (["--workers", "0"], "--workers must be >= 1"),
        (["--data_dir", "nowhere"], "is missing"),
        (["--output_dir", "x"], "has no option '--output_dir'; did you mean '--output'"),
        (["--seed", "x"], "--seed is 'x'; it must be a whole number"),
        (["--hidden_size", "33"], "does not divide hidden_size"),
    ],
)
def test_mistakes_are_one_line(command, ran, tmp_path, capsys, words, message):
    assert command(*words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not ran
    assert not (tmp_path / "out").exists()


def test_without_optuna_the_error_names_its_install(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert command() == 2
    assert "pip install 'rmaat[search]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_real_search_and_the_training_from_its_file(listops_dir, tmp_path):
    def rmaat(*words):
        command = [sys.executable, "-m", "rmaat", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    data = ["--data_dir", str(listops_dir)]
    words = f"search --recipe {RECIPE} --models rmaat transformer --trials 2 --workers 2"
    done = rmaat(*words.split(), "--max_steps", "3", "--output", str(tmp_path / "out"), *data)
    assert "2 of 2" in done.stdout
    stored = json.loads((tmp_path / "out/search.json").read_text())
    assert [trial["status"] for trial in stored["trials"]] == ["finished"] * 4
    folders = ["--config", tmp_path / "out/transformer.yaml", "--output_dir", tmp_path / "run"]
    rmaat("train", *map(str, folders), "--max_steps", "3")
    metrics = json.loads((tmp_path / "run" / METRICS).read_text())
    best = stored["trials"][1 + 2 * stored["best"]["transformer"]]
    assert metrics["model"] == "transformer"
    rate = read_settings(tmp_path / "run/run.yaml")["learning_rate"]
    assert rate == best["values"]["learning_rate"]
