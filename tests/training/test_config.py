"""The run config and its ways in: YAML, flags, mistakes."""

from dataclasses import fields, replace

import pytest

from rmaat.cli.main import main
from rmaat.errors import UserError
from rmaat.training.config import RunConfig, read_settings


def test_numbers_may_have_an_exponent_without_a_point(tmp_path):
    """YAML 1.2 and the command line allow such numbers. PyYAML's own loader reads them as text."""
    (tmp_path / "run.yaml").write_text(
        "learning_rate: 2e-3\nweight_decay: 1E-2\nmax_grad_norm: .5e+1\noutput_dir: 2e\n"
    )
    run = RunConfig.from_yaml(tmp_path / "run.yaml")
    assert (run.learning_rate, run.weight_decay, run.max_grad_norm, run.output_dir) == (2e-3, 1e-2, 5.0, "2e")


def test_yaml_survives_a_round_trip(tmp_path):
    run = RunConfig(
        learning_rate=3e-5, macro_model={"tau_long": 60.0}, truncated_segments=2, memory_replay_backprop=False
    )
    (tmp_path / "run.yaml").write_text(run.to_yaml())
    assert RunConfig.from_yaml(tmp_path / "run.yaml") == run


def test_every_setting_is_described():
    from rmaat.settings import ModelSettings
    from rmaat.tasks.options import FilesOptions, MemoryOptions

    for cls in (ModelSettings, FilesOptions, MemoryOptions, RunConfig):
        for field in fields(cls):
            if field.name in cls.__annotations__:
                assert f"        {field.name}:" in cls.__doc__, field.name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--hiden_size 3", "did you mean '--hidden_size'"),
        ("--hidden_size many", "--hidden_size is 'many'; it must be a whole number"),
        ("--dataset listop", "did you mean 'listops'"),
        ("--num_segments 7 --max_seq_len 64", "does not divide"),
        ("--config missing.yaml", "cannot read the run config 'missing.yaml'"),
        ("--config", "--config needs the path of a YAML file, such as the run.yaml of a run"),
        ("--config --seed 1", "--config needs the path of a YAML file"),
        ("--config= --seed 1", "--config needs the path of a YAML file"),
        ("--learning_rate -1", "learning_rate must be a number above 0"),
        ("--data_seed -1", "data_seed must be a whole number >= 0, not -1"),
        ("--bf16 true --fp16", "exclude each other"),
        ("--bf16 --fp16", "exclude each other"),
        ("--output_dir=", "output_dir must not be empty text"),
        ("--resume.x --overwrite", "has no option '--resume.x'"),
        ("--model.x 3", "has no option '--model.x'"),
        ("--config a.yaml --config b.yaml", "--config is given twice"),
        ("--retention_constant 0.3", "--retention_constant has no effect: retention_schedule is 'ltp'"),
        ("--curriculum_threshold 0.5", "--curriculum_threshold has no effect: curriculum is false"),
        ("--bf16 maybe", "--bf16 is 'maybe'"),
        ("--max_steps 0 --num_train_epochs 0", "nothing to train"),
        ("--truncated_segments 2", "memory_replay_backprop: false"),
        ("--dataset listops --data_dir /nonexistent", "listops"),
        ("--lr_scheduler_type step", "known: constant_with_warmup, cosine, linear"),
    ],
)
def test_mistakes_give_one_line_and_status_2(flags, said, capsys):
    assert main(["train", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hiden_size: 3\n", "did you mean 'hidden_size'"),
        ("hidden_size: [3\nseed: 1\n", "line 2"),
        ("- 3\n", "lines of 'key: value'"),
        ("hidden_size: wide\n", "bad.yaml': hidden_size is 'wide'; it must be a whole number"),
    ],
)
def test_mistakes_in_a_file_name_it(tmp_path, text, said, capsys):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    assert main(["train", "--config", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_flags_win_over_the_file(monkeypatch, tmp_path):
    import rmaat.cli.train as verb

    seen = []
    monkeypatch.setattr(
        "rmaat.training.run.train", lambda run, bar: seen.append(run) or (_ for _ in ()).throw(UserError("stop"))
    )
    path = tmp_path / "run.yaml"
    path.write_text("hidden_size: 64\nseed: 3\nbf16: true\nmacro_model: {tau_long: 40.0}\n")
    assert main(["train", "--config", str(path), "--seed", "5", "--torch_compile", "--astro_mem", "false"]) == 2
    assert verb.RunConfig is RunConfig
    run = seen[0]
    assert (run.hidden_size, run.seed, run.bf16, run.torch_compile, run.astro_mem) == (64, 5, True, True, False)
    assert run.macro_model == {"tau_long": 40.0}


def test_a_stored_run_neither_deletes_nor_resumes_a_run():
    text = RunConfig(overwrite=True).to_yaml() + RunConfig(resume=True).to_yaml()
    assert "overwrite: true" not in text
    assert "resume: true" not in text


def test_a_file_of_comments_has_no_settings(tmp_path):
    (tmp_path / "run.yaml").write_text("# seed: 3\n")
    assert read_settings(tmp_path / "run.yaml") == {}


def test_every_range_is_checked():
    for bad in (
        {"eval_steps": -1},
        {"per_device_train_batch_size": 0},
        {"seed": -1},
        {"data_seed": -1},
        {"weight_decay": -0.1},
        {"learning_rate": float("nan")},
        {"max_grad_norm": float("nan")},
        {"label_smoothing_factor": 1.0},
        {"segment_loss_weight": -1.0},
        {"class_weights": "weighted"},
        {"metric_for_best_model": "f1"},
        {"adam_beta1": 1.0},
        {"adam_beta2": -0.1},
        {"early_stopping_patience": 0},
        {"ema_decay": 0.0},
        {"ema_decay": 1.0},
    ):
        with pytest.raises(UserError, match=next(iter(bad))):
            replace(RunConfig(), **bad).check()


@pytest.mark.parametrize(
    ("file", "flags", "switched_off"),
    [
        (
            {"replay_budget": "2GiB", "replay_buffer": "cpu"},
            {"memory_replay_backprop": False},
            {"replay_budget": None, "replay_buffer": "device"},
        ),
        (
            {"memory_replay_backprop": False, "truncated_segments": 2},
            {"memory_replay_backprop": True},
            {"truncated_segments": None},
        ),
        (
            {"associative_memory": True, "associative_writers": "all", "associative_retention": True},
            {"associative_memory": False},
            {"associative_writers": "memory", "associative_retention": False},
        ),
        ({"input_type": "values", "patch_size": 2}, {"input_type": "tokens"}, {"patch_size": 1}),
        ({"replay_budget": 3}, {"model": "rmt"}, {"replay_budget": None}),
    ],
)
def test_a_flag_switches_off_what_it_excludes_in_a_file(file, flags, switched_off):
    RunConfig.resolved(file).check()
    run = RunConfig.resolved(file, flags)
    run.check()
    assert {name: getattr(run, name) for name in switched_off} == switched_off
    # In one layer they contradict each other.
    if "model" not in flags:
        with pytest.raises(UserError):
            RunConfig.resolved({**file, **flags}).check()


def test_a_flag_does_not_switch_on_what_it_needs():
    with pytest.raises(UserError, match="truncated_segments needs memory_replay_backprop: false"):
        RunConfig.resolved({"memory_replay_backprop": True}, {"truncated_segments": 2}).check()
    with pytest.raises(UserError, match="replay_budget needs memory_replay_backprop: true"):
        RunConfig.resolved({"memory_replay_backprop": False}, {"replay_budget": 2}).check()
