"""`SegmentTrainer`: the Trainer of transformers with this project's batches, counts and checks."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction
from transformers.utils import SAFE_WEIGHTS_NAME

from rmaat.errors import TrainingDivergedError, UserError
from rmaat.models import RmaatForCausalLM
from rmaat.models.masked import draw_masked
from rmaat.problems import SINGLE_LABEL
from rmaat.tasks.reader import TokenReader
from rmaat.tasks.texts import LATER
from rmaat.training.batches import ConsecutiveSequences, GroupedByLength, GroupedBySegments, TrainingExamples
from rmaat.training.carried_memory import CarriedMemory
from rmaat.training.checkpoints import checkpoint_at, checkpoint_damage, prune, seal
from rmaat.training.curriculum import Curriculum
from rmaat.training.label_loss import LabelLoss
from rmaat.training.metrics import joined
from rmaat.training.peak_memory import PeakMemory
from rmaat.training.problems import PROBLEMS, Problem
from rmaat.training.random_state import preserved_random_state
from rmaat.training.stored_model import read_weights
from rmaat.training.weight_average import WeightAverage


@dataclass(frozen=True)
class MaskedObjective:
    """A loss at masked positions, drawn anew for each batch.

    Attributes:
        share: the share of masked positions.
        patch_size: values of a position.
        weight: the weight of the loss beside that of the labels; None means that there are no labels.
    """

    share: float
    patch_size: int = 1
    weight: float | None = None

    @property
    def alone(self) -> bool:
        """Whether the model learns nothing else."""
        return self.weight is None

    def inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch with its masked positions, and without labels if they are not learned."""
        masks = {"attention_mask": "masked", "other_attention_mask": "other_masked"}
        drawn = {
            name: draw_masked(inputs[mask], self.share, self.patch_size)
            for mask, name in masks.items()
            if mask in inputs
        }
        return {name: x for name, x in {**inputs, **drawn}.items() if name != "labels" or not self.alone}


@dataclass(frozen=True)
class CausalObjective:
    """The loss of each next token."""

    alone: ClassVar[bool] = True

    def inputs(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the batch with its own ids as labels."""
        return {**inputs, "labels": inputs["input_ids"].long()}


WITHOUT_DECAY = (".log_rate", ".gain")
"""Ends of the names of parameters without weight decay: 0 is no neutral value of theirs."""


class SegmentTrainer(Trainer):
    """A Trainer that batches by length, counts tokens, and stops if training diverges.

    With a curriculum, all examples of a batch have the same number of segments, and each evaluation
    during training may raise the maximum of that number.
    """

    def __init__(
        self,
        *args: Any,
        train_lengths: NDArray[np.integer],
        curriculum: Curriculum | None = None,
        problem: Problem = PROBLEMS[SINGLE_LABEL],
        best_metric: str = "accuracy",
        label_loss: LabelLoss = LabelLoss(),  # noqa: B008 (it is immutable)
        patience: int | None = None,
        ema_decay: float | None = None,
        objective: MaskedObjective | CausalObjective | None = None,
        carry_labels: NDArray[np.int64] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.memory = PeakMemory()
        self._curriculum = curriculum
        self._problem = problem
        self._best_metric = best_metric
        self._label_loss = label_loss
        self._objective = objective
        self._patience = patience
        self._average: WeightAverage | None = None
        if ema_decay is not None:
            # The model is on its device by now.
            self._average = WeightAverage(self.model, ema_decay)
            self.add_callback(self._average)
        batch, seed = self.args.train_batch_size * self.args.world_size, self.args.seed
        batches = len(train_lengths) // batch
        self._steps_per_epoch = max(1, -(-batches // self.args.gradient_accumulation_steps))
        # The samplers compute the epoch from the step, because transformers does not call set_epoch
        # on a sampler when several processes resume.
        self._carried: CarriedMemory | None = None
        self._train_sampler: Sampler[int]
        if carry_labels is not None:
            assert isinstance(self.model, RmaatForCausalLM)
            self._carried = CarriedMemory(self.model)
            self._train_sampler = ConsecutiveSequences(carry_labels == LATER, batch, seed, self._epoch)
        elif curriculum is None:
            self._train_sampler = GroupedByLength(train_lengths, batch, seed, self._epoch)
        else:
            segments_E = curriculum.train_segments
            self._train_sampler = GroupedBySegments(segments_E, batch, seed, self._epoch, lambda: self.levels)

    @property
    def totals(self) -> dict[str, Any]:
        """The totals of the whole run.

        They are the `tokens` of all processes, the `seconds` spent in training steps, and the peak
        `memory` of a step in bytes. The trainer's state holds them. Each checkpoint stores that
        state, so that a resumed run continues to count.
        """
        return self.state.stateful_callbacks.setdefault("RunTotals", {"tokens": 0, "seconds": 0.0, "memory": 0})

    @property
    def levels(self) -> list[list[int]]:
        """The curriculum's pairs [first batch, maximum number of segments from that batch on].

        They are stored like `totals`.
        """
        assert self._curriculum is not None
        return self.state.stateful_callbacks.setdefault("Curriculum", [[0, self._curriculum.lowest]])

    def train_from(self, checkpoint: Path | None) -> None:
        """Train to the end, from a checkpoint or from the start.

        If training ended at the checkpoint, only load its state and the best weights. The Trainer
        of transformers would train one more step before it noticed.
        """
        if checkpoint is not None:
            state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            if state.global_step >= self.args.max_steps or self._patience_is_over(state):
                state.is_world_process_zero = self.is_world_process_zero()
                state.is_local_process_zero = self.is_local_process_zero()
                self.state = state
                self._load_best_model()
                return
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, seal it, and remove those that are no longer needed.

        The Trainer of transformers would remove old ones before the new one is on the disk.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        super()._save_checkpoint(model, trial)
        self.args.save_total_limit = limit
        if self._carried is not None:
            self._carried.save(
                checkpoint_at(Path(str(self.args.output_dir)), self.state.global_step), self.args.process_index
            )
        # Each process writes its own random state.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder, step = Path(str(self.args.output_dir)), self.state.global_step
            if self._average is not None:
                self._average.save_raw(checkpoint_at(folder, step))
            seal(checkpoint_at(folder, step))
            assert limit is not None
            prune(folder, step, self.state.best_global_step, limit)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Note the best evaluation, and stop training if the patience is over."""
        is_best = super()._determine_best_metric(metrics, trial)
        if self._patience_is_over(self.state):
            self.control.should_training_stop = True
            if self.is_world_process_zero():
                steps = f"step {self.state.global_step}: {self._patience} evaluations"
                print(f"stopped at {steps} without a better result", file=sys.stderr)
        return is_best

    def _patience_is_over(self, state: TrainerState) -> bool:
        """Return whether the last evaluations were not better than the best before them.

        The state's steps suffice, so a resumed run stops at the same step. The callback of
        transformers counts for itself, and begins anew in a resumed run.
        """
        if self._patience is None or state.best_global_step is None:
            return False
        interval = int(self.args.eval_steps or 1)
        return state.global_step // interval - state.best_global_step // interval >= self._patience

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Return a context in which the model has its averaged weights, if the run averages them."""
        return nullcontext() if self._average is None else self._average.applied()

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Report, evaluate and save what is due, with the averaged weights."""
        with self.averaged_weights() if self.control.should_evaluate or self.control.should_save else nullcontext():
            super()._maybe_log_save_evaluate(*args, **kwargs)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load the weights with which training goes on, and their average."""
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._average is not None:
            self._average.load(Path(resume_from_checkpoint))
        if self._carried is not None:
            self._carried.load(Path(resume_from_checkpoint), self.args.process_index)

    def _load_best_model(self) -> None:
        """Load the weights of the best checkpoint, or of the last one if none was evaluated.

        The Trainer of transformers takes the path that the state stores, which is wrong once the
        folder was moved, and then keeps the last weights.
        """
        best = checkpoint_at(Path(str(self.args.output_dir)), self.state.best_global_step or self.state.global_step)
        try:
            damage = checkpoint_damage(best)
        except FileNotFoundError:
            damage = "it is missing"
        if damage is not None:
            raise UserError(f"the best checkpoint, '{best}', is damaged: {damage}")
        assert self.model is not None
        self.model.load_state_dict(read_weights(best / SAFE_WEIGHTS_NAME))

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return the names of the parameters with weight decay: neither biases, nor norms, nor rates."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if not name.endswith(WITHOUT_DECAY)]

    def _epoch(self) -> int:
        return self.state.global_step // self._steps_per_epoch

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._train_sampler

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)

    def evaluation_loop(self, dataloader: DataLoader[Any], *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate, and during training report the `rank` by which the best checkpoint is chosen.

        The logits and labels of all examples, in the order of evaluation, are the predictions and
        label_ids of the output. They are on the CPU: E C float32 numbers for E examples and C classes.
        The problem type may keep others, see `Problem.collected`.

        With a curriculum also report the accuracy on examples up to its maximum, as
        eval_level_accuracy. The maximum rises if that accuracy reaches the threshold.

        Raises:
            TrainingDivergedError: during training, if the logits of an example are not finite.
            UserError: the same after training.
        """
        with preserved_random_state():
            # Every evaluation masks the same positions.
            torch.manual_seed(self.args.seed)
            if self._carried is None:
                output = super().evaluation_loop(dataloader, *args, **kwargs)
            else:
                output = self._carried_evaluation(dataloader.dataset, kwargs.get("metric_key_prefix", "eval"))
        if output.predictions is not None:
            output = output._replace(predictions=joined(output.predictions), label_ids=joined(output.label_ids))
            self._check_finite_logits(output.predictions, dataloader.dataset)
            if (loss := self._problem.loss(output.predictions, output.label_ids)) is not None:
                output.metrics[f"{kwargs.get('metric_key_prefix', 'eval')}_loss"] = loss
        if self.is_in_train:
            loss = output.metrics["eval_loss"]
            by_loss = output.predictions is None
            scores = {name.removeprefix("eval_"): value for name, value in output.metrics.items()}
            output.metrics["eval_rank"] = -loss if by_loss else self._problem.rank(self._best_metric, scores, loss)
        if self._curriculum is not None and self.is_in_train:
            assert isinstance(self._train_sampler, GroupedBySegments)
            level = self.levels[-1][1]
            accuracy = self._curriculum.accuracy(self._problem.correct(output.predictions, output.label_ids), level)
            output.metrics.update(eval_segments=level, eval_level_accuracy=accuracy)
            following = self._curriculum.after(level, accuracy)
            # The evaluation after the last step may be an additional one. A run that is resumed with
            # more steps has the same maxima as a run that began with them.
            if following > level and self.state.global_step % int(self.args.eval_steps or 1) == 0:
                # The loader has drawn batches ahead of training with the old maximum. Begin the new
                # one after them, so that a resumed run draws the same batches.
                self.levels.append([self._train_sampler.drawn, following])
        return output

    @torch.no_grad()
    def _carried_evaluation(self, examples: Any, prefix: str) -> EvalLoopOutput:
        """Return the mean loss of texts that are read in order, with the memory of the sequences before.

        Several texts are read side by side. The few examples that do not fill a batch are left out.
        Each process reads all of them.
        """
        assert isinstance(examples, TokenReader)
        assert isinstance(self.model, RmaatForCausalLM)
        rows = min(self.args.per_device_eval_batch_size, int((examples.labels != LATER).sum()))
        order_KB = np.arange(len(examples) // rows * rows).reshape(rows, -1).T.tolist()
        visited = TrainingExamples(examples, None, 0, with_visits=True)
        carried, total, count = CarriedMemory(self.model), 0.0, 0
        self.model.eval()
        for visits in order_KB:
            batch = self.data_collator(visited.__getitems__(visits))
            inputs = CausalObjective().inputs(carried.inputs(self._prepare_inputs(batch)))
            with self.compute_loss_context_manager():
                output = self.model(**inputs)
            carried.keep(output, inputs)
            predicted = int((inputs["attention_mask"].sum(1) - 1).sum())
            # A batch of single tokens predicts nothing.
            total, count = total + (float(output.loss) * predicted if predicted else 0.0), count + predicted
        metrics = {f"{prefix}_loss": total / max(count, 1)}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(examples))

    def prediction_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a batch, and what the problem type keeps of its outputs and labels."""
        loss, outputs, labels = super().prediction_step(model, inputs, *args, **kwargs)
        if outputs is not None:
            assert self.model is not None
            outputs, labels = self._problem.collected(outputs, labels, self.model.config)
        return loss, outputs, labels

    def _check_finite_logits(self, logits_EC: NDArray[np.float32], examples: Any) -> None:
        for index in np.flatnonzero(~np.isfinite(logits_EC).all(1))[:1]:
            row = examples.row(index) if isinstance(examples, TokenReader) else index
            message = f"the logits of example {row} of the evaluated part are not finite"
            if self.is_in_train:
                raise TrainingDivergedError(f"{message} at step {self.state.global_step}; lower learning_rate")
            raise UserError(f"{message}: its values are too large for the model, or the model has diverged")

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor | tuple[Tensor, Any]:
        """Return the loss of a batch, in training with the `LabelLoss` and a masked loss.

        The Trainer of transformers would smooth the loss of evaluations too.
        """
        # Beside labels, positions are masked in training only: evaluations classify whole inputs.
        objective = self._objective if model.training or (self._objective and self._objective.alone) else None
        carried = self._carried if model.training else None
        if carried is not None:
            inputs = carried.inputs(inputs)
        if objective is not None:
            inputs = objective.inputs(inputs)
        label_loss = self._label_loss if model.training and not self._label_loss.plain else None
        by_segment = {"output_segment_logits": True} if label_loss and label_loss.segment_weight else {}
        measured = {} if model.training or objective is not None else self._problem.evaluation_arguments
        loss, outputs = super().compute_loss(model, {**inputs, **by_segment, **measured}, return_outputs=True, **kwargs)
        if carried is not None:
            carried.keep(outputs, inputs)
        if label_loss is not None:
            loss = label_loss(outputs, inputs)
        if isinstance(objective, MaskedObjective) and not objective.alone:
            loss = loss + objective.weight * outputs.masked_loss
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Compute the gradients of one batch; time the step and check that they are finite."""
        started = time.perf_counter()
        tokens = sum(int(x.sum()) for name, x in inputs.items() if name.endswith("attention_mask"))
        self.memory.begin_step(sum(p.numel() * p.element_size() for p in model.parameters()))
        loss = super().training_step(model, inputs, *args, **kwargs)
        self._check_finite(model, loss)
        self.memory.end_step()
        if self.args.world_size > 1:
            tokens = int(self.accelerator.reduce(torch.tensor(tokens, device=loss.device)))
        self.totals["tokens"] += tokens
        self.totals["seconds"] += time.perf_counter() - started
        self.totals["memory"] = max(self.totals["memory"], self.memory.training_peak)
        return loss

    def _check_finite(self, model: nn.Module, loss: Tensor) -> None:
        # float16's gradient scaler expects infinite gradients and skips their steps.
        parameters = () if self.args.fp16 else model.named_parameters()
        gradients = [(name, p.grad) for name, p in parameters if p.grad is not None]
        # A sum is not finite if one of its terms is not. Read all sums in one transfer.
        sums = torch.stack([loss.detach().float(), *(grad.sum().float() for _, grad in gradients)])
        finite = torch.isfinite(sums).tolist()
        if all(finite):
            return
        broken = "the loss" if not finite[0] else f"the gradient of {gradients[finite[1:].index(False)][0]}"
        raise TrainingDivergedError(
            f"{broken} is not finite at step {self.state.global_step + 1}; lower learning_rate, "
            "raise warmup_steps, or set max_grad_norm; the last checkpoint is complete"
        )


def float_logits(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """Return the logits as float32, because NumPy has no bfloat16."""
    return logits_BC.float()


def reported_metrics(prediction: EvalPrediction, problem: Problem) -> dict[str, float]:
    """Return the metrics of a problem type for the Trainer of transformers.

    Args:
        prediction: logits and labels, a list of batches each.
        problem: the problem type.

    Returns:
        Nothing if a logit is not finite. `SegmentTrainer` then stops the run.
    """
    outputs_EC, labels_E = joined(prediction.predictions), joined(prediction.label_ids)
    return problem.metrics(outputs_EC, labels_E) if np.isfinite(outputs_EC).all() else {}
