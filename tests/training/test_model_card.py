"""The model card of a run, and a run's folder as a model of others."""

import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from rmaat.training.config import RunConfig
from rmaat.training.model_card import model_card

METRICS = {
    "test_accuracy": 0.75,
    "eval_loss": 0.51234,
    "steps": 1200,
    "best_step": None,
    "command": "rmaat train --recipe files",
    "commit": "abc",
    "machine": "a processor",
    "data": {
        "train": {
            "examples": 1234,
            "classes": {"a|b": 1000, "c": 234},
            "lengths": {"input_ids": {"mean": 10.5, "p50": 1, "p95": 2, "longest": 4000, "cut": 3, "max_seq_len": 96}},
            "notes": ["2 examples dropped"],
        }
    },
}


@pytest.mark.parametrize("text", [True, False])
def test_the_card_has_data_results_and_command(text):
    card = ModelCard(
        model_card(
            RunConfig(dataset="files", output_dir="runs/x/"), METRICS, classifies_text=text, reads_any_length=True
        )
    )
    assert card.data.library_name == "transformers"
    assert card.data.tags == ["rmaat", "long-context", "files"]
    assert card.data.pipeline_tag == ("text-classification" if text else None)
    assert card.text.startswith("\n# x\n") or card.text.startswith("# x\n")
    assert ("pipeline(" in card.text) == text
    row = "| train | 1,234 | a\\|b: 1,000, c: 234 | mean 10, longest 4,000, 3 cut to 96 |"
    for line in (row, "- train: 2 examples dropped", "| accuracy on test | 0.75 |", "| loss on validation | 0.5123 |"):
        assert line in card.text.splitlines()
    assert "step of this checkpoint" not in card.text
    assert "\nrmaat train --recipe files\n" in card.text


@pytest.mark.parametrize("commit", ["abc", "version 0.1.0"])
@pytest.mark.parametrize("any_length", [True, False])
def test_the_card_names_the_folder_and_the_version(commit, any_length):
    run = RunConfig(dataset="files", output_dir="runs/files")
    card = model_card(run, {**METRICS, "commit": commit}, classifies_text=True, reads_any_length=any_length)
    assert 'pipeline("text-classification", "runs/files")' in card
    assert ("truncation" in card) != any_length
    assert f"Trained with {'commit abc' if commit == 'abc' else 'version 0.1.0'} on a processor." in card
    other = model_card(run, METRICS, classifies_text=False, reads_any_length=any_length)
    assert '.from_pretrained("runs/files")' in other


def test_a_run_writes_its_card(finished):
    card = ModelCard.load(finished / "README.md")
    assert card.data.tags[-1] == "listops_short"
    assert card.data.pipeline_tag is None
    assert "| train | 256 |" in card.text
    assert "accuracy on test" in card.text


def test_others_use_a_run_s_folder_offline_without_its_settings(finished, tmp_path):
    for name in ("config.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    script = (
        "import rmaat, torch; from transformers import AutoModelForSequenceClassification as Auto; "
        f"model = Auto.from_pretrained({str(tmp_path)!r}); "
        "assert model(torch.ones(1, 9, dtype=torch.long)).logits.shape == (1, 10)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path), "HOME": str(Path.home())}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
