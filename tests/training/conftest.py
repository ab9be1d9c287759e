"""A tiny generated data set and the settings of a run of seconds."""

from pathlib import Path

import pytest

from rmaat.cli.main import main
from rmaat.training.config import RunConfig


@pytest.fixture(scope="session")
def listops_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder holding a few hundred short ListOps expressions."""
    folder = tmp_path_factory.mktemp("data")
    sizes = ["--num_train", "256", "--num_val", "48", "--num_test", "40"]
    assert main(["data", "listops_short", "--data_dir", str(folder), *sizes]) == 0
    return folder


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
