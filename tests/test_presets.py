"""The models by name: what they fix, what may be changed, and what is refused."""

import subprocess
import sys
from dataclasses import fields, replace

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.presets import MODELS, resolve
from rmaat.settings import ModelSettings
from rmaat.training.config import RunConfig

ASKED_FOR = {
    *("transformer", "nystromformer", "luna", "linear_transformer", "linformer", "performer"),
    *("astromorphic_transformer", "rmt", "rlt", "rmt_replay", "rlt_replay", "vla", "s4d"),
    *("rmaat", "rmaat_plus", "rmaat_causal", "rmaat_long"),
    *("armt", "armt_replay"),
}


def test_every_model_asked_for_is_there_and_valid():
    assert set(MODELS.names()) == ASKED_FOR
    known = {field.name for field in fields(ModelSettings)}
    for name in MODELS.names():
        preset = MODELS[name]
        assert (
            set(preset.fixed) | set(preset.specific_settings) | {key for changes in preset.lighter for key in changes}
            <= known
        )
        assert set(preset.ablations) <= set(preset.fixed)
        assert not set(preset.specific_settings) & set(preset.fixed)
        run = RunConfig.resolved({"model": name})
        run.check()
        for key, value in preset.fixed.items():
            assert getattr(run, key) == value


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        (
            "rmt",
            {"attention_type": "astro"},
            "model 'rmt' fixes attention_type softmax, but it is combined with attention_type astro",
        ),
        ("rmt", {"memory_replay_backprop": True}, "model 'rmt' fixes memory_replay_backprop false"),
        ("transformer", {"num_segments": 8}, "fixes num_segments 1, but it is combined with num_segments 8"),
        ("luna", {"num_memory_tokens": 16}, "num_memory_tokens 256"),
        ("rmaat", {"attention_type": "linear"}, r"\(or, as an ablation, softmax\)"),
        ("rmaat", {"hebbian_sigmoid": True}, "model 'rmaat' fixes hebbian_sigmoid false"),
        ("rmatt", {}, "did you mean 'rmaat'"),
    ],
)
def test_contradictions_are_refused_naming_both(name, given, said):
    with pytest.raises(UserError, match=said):
        resolve({"model": name, **given})


def test_all_contradictions_are_named_at_once():
    config = {"num_segments": 2, "num_memory_tokens": 1, "attention_type": "astro", "memory_replay_backprop": True}
    with pytest.raises(UserError) as refused:
        resolve({"model": "transformer", **config, "astro_mem": True, "hidden_size": 64})
    assert str(refused.value) == (
        "model 'transformer' fixes num_segments 1, num_memory_tokens 0, attention_type softmax, "
        "memory_replay_backprop false and astro_mem false, but it is combined with num_segments 2, "
        "num_memory_tokens 1, attention_type astro, memory_replay_backprop true and astro_mem true; "
        "remove num_segments, num_memory_tokens, attention_type, memory_replay_backprop and "
        "astro_mem, or remove model"
    )


@pytest.mark.parametrize(
    "given",
    [
        {"hebbian_astro": False},
        {"presynaptic_plasticity": False},
        {"calcium_exponent": 1.0},
        {"calcium_exponent": 0.5},
        {"retention_schedule": "none"},
        {"retention_schedule": "learned"},
        {"astro_mem": False},
        {"attention_type": "softmax"},
        {"memory_replay_backprop": False},
        {"memory_replay_backprop": False, "truncated_segments": 2},
        {"num_memory_tokens": 0},
        {"num_memory_tokens": 16},
        {"num_segments": 16},
        {"positional_encoding": False},
        {"associative_memory": True},
        {"retention_form": "gate"},
        {"memory_layout": "back"},
        {"hebbian_astro": False, "presynaptic_plasticity": False, "retention_schedule": "plateau", "num_segments": 2},
    ],
    ids=str,
)
def test_every_ablation_of_rmaat_is_one_setting(given):
    run = RunConfig.resolved({"model": "rmaat", **given})
    run.check()
    plain = RunConfig.resolved({"model": "rmaat"})
    assert {key: getattr(run, key) for key in given} == given
    assert replace(run, **{key: getattr(plain, key) for key in given}) == plain


def test_what_is_given_is_kept_and_no_model_means_as_given():
    assert resolve({"hidden_size": 32, "attention_type": "vla"}) == {"hidden_size": 32, "attention_type": "vla"}
    assert resolve({"model": "s4d", "state_size": 16})["state_size"] == 16


def test_the_resolved_config_loads_again(tmp_path):
    run = RunConfig.resolved({"model": "luna", "hidden_size": 32, "match_parameters": 70_000})
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    assert "num_memory_tokens: 256" in run.to_yaml()
    assert RunConfig.from_yaml(tmp_path / "run.yaml") == run


def test_a_config_changed_against_its_model_fails_its_check():
    with pytest.raises(UserError, match="model 'rmt' fixes"):
        replace(RunConfig.resolved({"model": "rmt"}), attention_type="vla").check()


@pytest.mark.parametrize(
    ("layers", "resolved"),
    [
        ([{"seed": 1, "hidden_size": 8}, {"seed": 2}], {"seed": 2, "hidden_size": 8}),
        ([{"num_segments": 8}, {"model": "transformer"}], {"num_segments": 1, "attention_type": "softmax"}),
        ([{"model": "transformer"}, {"model": "rmt", "num_segments": 4}], {"model": "rmt", "num_segments": 4}),
        ([{"model": "rmt"}, {"attention_type": "vla"}], {"model": None, "attention_type": "vla", "astro_mem": False}),
        ([{"model": "rmaat"}, {"astro_mem": False}], {"model": "rmaat", "astro_mem": False}),
        ([{"max_steps": 9}, {"num_train_epochs": 2.0}], {"max_steps": 0, "num_train_epochs": 2.0}),
        ([{"max_steps": 9, "num_train_epochs": 2.0}], {"max_steps": 9}),
        ([{"match_parameters": 9}, {"intermediate_size": 8}], {"match_parameters": None, "intermediate_size": 8}),
        ([{"bf16": "auto"}, {"fp16": True}], {"bf16": False, "fp16": True}),
        ([{"bf16": "auto"}, {"fp16": False}], {"bf16": "auto", "fp16": False}),
        ([{"overwrite": True}, {"resume": True}], {"overwrite": False, "resume": True}),
        ([{"astro_mem": False}, {"retention_schedule": "ltp"}], {"astro_mem": True}),
        ([{"max_steps": 9}, {"num_train_epochs": 0}], {"max_steps": 0}),
        ([{"num_segments": 3}, {"model": "transformer"}, {"model": "rmt"}], {"num_segments": 3, "model": "rmt"}),
        ([{"model": "rmt"}, {"model": "rmt", "retention_schedule": "ltp"}], {"model": "rmt", "astro_mem": False}),
        ([{"model": "rmaat", "attention_type": "softmax"}, {"model": "rmaat"}], {"attention_type": "softmax"}),
    ],
    ids=str,
)
def test_a_later_layer_replaces_an_earlier_one(layers, resolved):
    settings = resolve(*layers)
    assert {name: settings[name] for name in resolved} == resolved


def test_a_model_of_a_later_layer_replaces_the_earlier_models_settings():
    long = {"model": "rmaat_long", "associative_size": 16, "norm_first": True, "hidden_size": 8, "num_memory_tokens": 4}
    settings = resolve(long, {"model": "rmt"})
    assert not {"associative_size", "norm_first", "retention_schedule"} & settings.keys()
    assert settings.items() >= {**MODELS["rmt"].fixed, "hidden_size": 8, "num_memory_tokens": 4}.items()
    assert resolve(long, {"model": "armt"})["associative_size"] == 16
    assert "num_segments" not in resolve({"model": "transformer"}, {"model": "rmt"})
    astro = {"attention_type": "astro", "hebbian_sigmoid": True}
    assert "hebbian_sigmoid" not in resolve(astro, {"model": "rmt"})


def test_flags_beat_the_file_and_contradict_only_flags(tmp_path, capsys, monkeypatch):
    runs = []

    def stop(run, bar):
        run.check()
        runs.append(run)
        raise UserError("stop")

    monkeypatch.setattr("rmaat.training.run.train", stop)
    path = tmp_path / "run.yaml"
    path.write_text("model: rmt\nnum_segments: 4\nmax_steps: 10\n")

    def train(*flags):
        assert main(["train", "--config", str(path), *flags]) == 2
        error = capsys.readouterr().err
        return error if "stop" not in error else runs[-1]

    run = train("--hidden_size", "32")
    assert (run.attention_type, run.astro_mem, run.num_segments, run.hidden_size) == ("softmax", False, 4, 32)
    # The default of attention_type, but given.
    run = train("--attention_type", "astro")
    assert (run.attention_type, run.model) == ("astro", None)
    run = train("--model", "transformer")
    assert (run.num_segments, run.model, run.max_steps) == (1, "transformer", 10)
    assert train("--num_train_epochs", "3").max_steps == 0
    assert "model 'transformer' fixes num_segments 1" in train("--model", "transformer", "--num_segments", "2")
    assert "--num_train_epochs has no effect" in train("--num_train_epochs", "3", "--max_steps", "5")
    assert "--retention_schedule has no effect" in train("--model", "rlt", "--retention_schedule", "ltp")
    assert "--intermediate_size has no effect" in train("--intermediate_size", "8", "--match_parameters", "9000")
    assert main(["train", "--model", "rnt"]) == 2
    assert "did you mean 'rmt'" in capsys.readouterr().err


def test_a_flag_that_takes_the_models_name_away_is_reported(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("model: rmt\ndataset: recall\n")
    arguments = ["train", "--config", str(path), "--data_dir", str(tmp_path), "--attention_type", "vla"]
    assert main(arguments) == 2
    assert "note: a flag changes a setting that model 'rmt' fixes; the run has no model name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"attention_type": "luna", "num_memory_tokens": 0}, "num_memory_tokens must be >= 1"),
        (
            {"attention_type": "softmax", "hebbian_sigmoid": True},
            "hebbian_sigmoid: true changes attention_type 'astro' only",
        ),
        ({"attention_type": "linear", "hebbian_astro": False}, "leave it true"),
        ({"conv_kernel_size": 4}, "must be odd"),
        ({"state_size": 5}, "must be even"),
        ({"num_random_features": 0}, "num_random_features must be a whole number >= 1"),
        ({"num_landmarks": 0}, "num_landmarks"),
        ({"linformer_size": 0}, "linformer_size"),
        ({"ridge_penalty": 0.0}, "ridge_penalty must be a number >= 0.0001"),
        ({"match_parameters": 0}, "match_parameters must be a whole number >= 1"),
    ],
)
def test_settings_of_mixers_are_checked(settings, said):
    with pytest.raises(UserError, match=said):
        RunConfig(**settings).check()


def test_list_models_names_all_with_what_they_fix(capsys):
    assert main(["list", "models"]) == 0
    told = capsys.readouterr().out
    for name in MODELS.names():
        assert f"\n{name} " in told
    assert "fixes: attention_type softmax, memory_replay_backprop true, astro_mem false" in told
    assert "ablations: attention_type, memory_replay_backprop" in told


def test_presets_know_nothing_of_torch():
    script = "import sys, rmaat.presets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_macro_model_is_built_once_for_equal_parameters():
    """Each forward pass asks for it."""
    one, equal, other = (RunConfig(macro_model={"tau_long": tau_long}).astrocyte for tau_long in (40.0, 40.0, 50.0))
    assert one is equal
    assert other.tau_long == 50.0
