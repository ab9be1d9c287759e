"""Fixtures for all tests."""

import json
from pathlib import Path

import pytest

from rmaat.cli.main import main

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data files beside the repository; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"needs the real data files in {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def listops_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder holding a few hundred short ListOps expressions."""
    folder = tmp_path_factory.mktemp("data")
    sizes = ["--num_train", "256", "--num_val", "48", "--num_test", "40"]
    assert main(["data", "listops_short", "--data_dir", str(folder), *sizes]) == 0
    return folder


@pytest.fixture(scope="session")
def own_text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on own texts about weather and food, of segments of 16 bytes."""
    folder = tmp_path_factory.mktemp("own_text")
    words = ("rain", "bread")
    for part, count in (("train", 60), ("test", 20)):
        rows = ({"text": f"{part} {i} " + words[i % 2] * (i % 9 + 1), "label": words[i % 2]} for i in range(count))
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = (
        "--dataset files --max_seq_len 64 --num_segments 4 --hidden_size 16 --num_hidden_layers 1 "
        "--num_attention_heads 2 --intermediate_size 16 --max_steps 4 --eval_steps 4 --warmup_steps 0 "
        "--per_device_train_batch_size 8 --readout running_mean"
    )
    files = ["--train_file", str(folder / "train.jsonl"), "--test_file", str(folder / "test.jsonl")]
    assert main(["train", *files, *settings.split(), "--output_dir", str(folder / "run")]) == 0
    return folder / "run"
