"""A model stored by version 0.1.0 computes what it computed then, whatever the defaults have become."""

import json
from pathlib import Path

import pytest
import torch

from rmaat import RmaatConfig, RmaatForSequenceClassification
from rmaat.cli.main import main
from rmaat.training.config import RunConfig

STORED = Path(__file__).parent / "version_0_1_0"
"""Written at commit ead69a5 by `save_pretrained`, with the logits of one sequence."""


def test_a_stored_model_keeps_its_behaviour():
    model = RmaatForSequenceClassification.from_pretrained(STORED).eval()
    expected = json.loads((STORED / "logits.json").read_text())
    with torch.no_grad():
        logits = model(torch.tensor([expected["input_ids"]])).logits
    torch.testing.assert_close(logits, torch.tensor([expected["logits"]]), rtol=1e-5, atol=1e-6)


def test_a_retired_setting_is_left_out_only_where_it_meant_nothing(tmp_path, capsys):
    assert not hasattr(RmaatConfig(embedding_std=1.0), "embedding_std")
    with pytest.raises(ValueError, match=r"sets embedding_std to 0\.02"):
        RmaatConfig(embedding_std=0.02)
    config = tmp_path / "run.yaml"
    config.write_text("embedding_std: 1.0\nmax_steps: 5\n")
    assert RunConfig.from_yaml(config).max_steps == 5
    # Accepted on the command line too, as far as the data that is not there.
    flags = f"--dataset recall --max_seq_len 512 --num_segments 16 --data_dir {tmp_path}"
    assert main(["train", "--config", str(config), *flags.split()]) == 2
    assert "make it with `rmaat data recall" in capsys.readouterr().err
