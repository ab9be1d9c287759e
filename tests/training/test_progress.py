"""The lines of a run: the usual metric, and the one that chooses the best checkpoint."""

import pytest
from transformers import TrainerControl, TrainerState

from rmaat.problems import SINGLE_LABEL
from rmaat.training.problems import PROBLEMS
from rmaat.training.progress import Progress


@pytest.mark.parametrize(
    ("best", "report"),
    [
        ("f1_macro", "validation loss 0.5000  accuracy 75.00%  macro F1 60.00%\n"),
        ("accuracy", "validation loss 0.5000  accuracy 75.00%\n"),
        ("loss", "validation loss 0.5000  accuracy 75.00%\n"),
    ],
)
def test_an_evaluation_is_reported_with_the_metric_that_decides(best, report, capsys):
    progress = Progress(PROBLEMS[SINGLE_LABEL], best)
    state, control = TrainerState(max_steps=10, global_step=4), TrainerControl()
    progress.on_train_begin(None, state, control)
    logs = {"eval_loss": 0.5, "eval_accuracy": 0.75, "eval_f1_macro": 0.6, "eval_auc": 0.9}
    progress.on_log(None, state, control, logs=logs)
    progress.close()
    assert capsys.readouterr().err == f"step      4  {report}"
