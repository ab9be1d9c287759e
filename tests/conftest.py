"""Fixtures for all tests."""

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
