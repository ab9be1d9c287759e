"""The settings of a run of seconds."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rmaat.cli.main import main
from rmaat.training.config import RunConfig
from rmaat.training.run import Result, train


def tiny_run(data_dir: Path, output_dir: Path) -> RunConfig:
    """Return the settings of a run of 12 steps."""
    return RunConfig(
        dataset="listops_short",
        data_dir=str(data_dir),
        output_dir=str(output_dir),
        max_seq_len=192,
        num_segments=3,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_steps=12,
        eval_steps=4,
        logging_steps=2,
        warmup_steps=2,
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
    )


@pytest.fixture
def tiny(listops_dir: Path, tmp_path: Path) -> RunConfig:
    """A run of 12 steps."""
    return tiny_run(listops_dir, tmp_path / "run")


@pytest.fixture(scope="session")
def straight(listops_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run of `tiny`, trained without an interruption."""
    return train(tiny_run(listops_dir, tmp_path_factory.mktemp("straight") / "run"))


@pytest.fixture(scope="session")
def finished(listops_dir, tmp_path_factory) -> Path:
    """A finished run through the command line."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    settings = (
        "--dataset listops_short --max_seq_len 192 --num_segments 3 --hidden_size 16 --num_hidden_layers 1 "
        "--num_attention_heads 2 --intermediate_size 16 --max_steps 8 --eval_steps 4 --logging_steps 2 "
        "--per_device_train_batch_size 16 --per_device_eval_batch_size 16 --data_seed 5"
    )
    assert main(["train", *settings.split(), "--data_dir", str(listops_dir), "--output_dir", str(folder)]) == 0
    return folder


@pytest.fixture
def texts(tiny: RunConfig, tmp_path: Path) -> RunConfig:
    """A run on texts of 1 to 12 segments of two balanced classes, where the maximum rises at each evaluation."""
    for part, mark, count in (("train", "r", 96), ("validation", "v", 48), ("test", "t", 16)):
        # Neighbours have one length and different labels.
        rows = [
            {"text": f"{mark}{i}".ljust(4 + i // 2 * 7 % 93, "ab"[i % 2]), "label": "ab"[i % 2]} for i in range(count)
        ]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return replace(
        tiny,
        dataset="files",
        data_dir=str(tmp_path),
        train_file=str(tmp_path / "train.jsonl"),
        validation_file=str(tmp_path / "validation.jsonl"),
        test_file=str(tmp_path / "test.jsonl"),
        max_seq_len=96,
        num_segments=12,
        lr_scheduler_type="constant_with_warmup",
        curriculum=True,
        curriculum_threshold=0.2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        max_steps=20,
    )
