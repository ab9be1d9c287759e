"""`rmaat.train` and `rmaat.predict`, the verbs of the command line as functions.

```python
import rmaat

result = rmaat.train(recipe="files", train_file="train.csv", output_dir="runs/reviews")
print(result.metrics["test_accuracy"])
for prediction in rmaat.predict("runs/reviews", ["a text", "another"]):
    print(*prediction.fields())
```
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rmaat.cli.progress import count_bar
from rmaat.errors import UserError
from rmaat.tasks.inputs import Example
from rmaat.training.config import RunConfig
from rmaat.training.effects import check_effects
from rmaat.training.finished_run import FinishedRun, open_run
from rmaat.training.inference import predict_many
from rmaat.training.problems import Prediction
from rmaat.training.results import Result
from rmaat.training.run import device
from rmaat.training.run import train as train_run


def train(**settings: Any) -> Result:
    """Train a model on a task as `rmaat train` does, and return its test results.

    The run's files are in `Result.output_dir`, and `Result.metrics` is the content of metrics.json.

    Args:
        settings: the flags of `rmaat train` without dashes, such as recipe, train_file or
            max_steps; see `rmaat train --help` and `rmaat.training.config.RunConfig`.

    Raises:
        UserError: a ValueError, for an unknown setting, a wrong value, a setting that has no effect
            beside another one, missing or malformed data, and an output_dir that holds a run,
            without overwrite or resume.
        TrainingDivergedError: if the loss or a gradient stops being finite.
    """
    config = RunConfig.resolved(settings)
    check_effects(settings, config)
    return train_run(config, count_bar)


def predict(run: str | Path | FinishedRun, texts: Sequence[str | tuple[str, str]]) -> list[Prediction]:
    """Return the prediction for each text, in order, with a finished run.

    Texts are batched by length and read whole, as `rmaat predict` does. By the run's problem type the
    predictions are `ClassPrediction`, `LabelSetPrediction` or `NumberPrediction` of
    `rmaat.training.problems`.

    Args:
        run: the folder of a run, or the run from `open_run`, which reads the folder once for
            several calls.
        texts: the texts; tuples of two for a run on pairs; for a run on images the paths of pictures.

    Raises:
        UserError: a ValueError, for a folder without a finished run, and for a text that is empty or
            that the task cannot encode; it names the index of the text.
    """
    if isinstance(texts, str):
        raise UserError("predict: texts is one string; give a list of texts, such as [text]")
    if not isinstance(run, FinishedRun):
        run = open_run(Path(run))
        run.model.to(device())
    run.check_classifies()
    examples = (Example(f"texts[{index}]", (x,) if isinstance(x, str) else tuple(x)) for index, x in enumerate(texts))
    predictions = []
    for outcome in predict_many(run, examples):
        if outcome.prediction is None:
            raise UserError(f"{outcome.name}: {outcome.problem}")
        predictions.append(outcome.prediction)
    return predictions
