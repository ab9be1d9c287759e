"""The settings of a run of seconds."""

from pathlib import Path

import pytest

from rmaat.cli.main import main
from rmaat.training.config import RunConfig


@pytest.fixture
def tiny(listops_dir: Path, tmp_path: Path) -> RunConfig:
    """A run of 12 steps."""
    return RunConfig(
        dataset="listops_short",
        data_dir=str(listops_dir),
        output_dir=str(tmp_path / "run"),
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
