"""The display of a run: one line per report, and a progress bar on a terminal or in a notebook."""

import sys
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rmaat.training.problems import Problem


class Progress(TrainerCallback):
    """A progress bar over steps, and lines for losses and metrics above it.

    Args:
        problem: the problem type.
        best_metric: the metric by which the best checkpoint is chosen, reported beside the usual one.
    """

    def __init__(self, problem: Problem, best_metric: str) -> None:
        self._problem = problem
        self._metrics = tuple(dict.fromkeys((problem.main_metric, best_metric)))
        self._bar: tqdm[Any] | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the bar at the step at which the run begins or resumes."""
        if state.is_world_process_zero:
            # Elsewhere a bar would be thousands of lines. The stream of a notebook is no terminal.
            shown = sys.stderr.isatty() or "ipykernel" in sys.modules
            size = {"total": state.max_steps, "initial": state.global_step, "ncols": 88}
            self._bar = tqdm(**size, unit="step", file=sys.stderr, disable=not shown)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Print a report above the bar."""
        if self._bar is None or not logs:
            return
        if "eval_loss" in logs:
            report = f"validation loss {logs['eval_loss']:.4f}"
            for metric in self._metrics:
                if metric != "loss" and (score := logs.get(f"eval_{metric}")) is not None:
                    report += f"  {self._problem.titles[metric]} {self._problem.value(metric, score).strip()}"
            if "eval_segments" in logs:
                report += f"  {100 * logs['eval_level_accuracy']:.2f}% on at most {logs['eval_segments']} segments"
        elif "loss" in logs:
            report = f"training loss {logs['loss']:.4f}  learning rate {logs['learning_rate']:.2e}"
        else:
            return
        self._bar.write(f"step {state.global_step:>6}  {report}", file=sys.stderr)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Close the bar, if it is open, so that the next line begins at the left."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
