"""The memory that goes from a training sequence to the next one of the same text.

Each row of the batches reads texts from their beginning to their end, see
`rmaat.training.batches.ConsecutiveSequences`. No gradient crosses from one batch to the next.

Axes: B rows, M memory tokens, D width.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rmaat.models import RmaatCausalLMOutput, RmaatForCausalLM
from rmaat.tasks.texts import LATER


class CarriedMemory:
    """What the last batch left: the model's state, and the visits of its examples, (B,) each row.

    Args:
        model: whose first memory a text begins with.
    """

    def __init__(self, model: RmaatForCausalLM) -> None:
        self._model = model
        self._left: dict[str, Tensor] = {}

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return a batch without its visits, with the state of each row before it."""
        visits_B, labels_B = batch["visits"], batch["labels"]
        batch = {name: x for name, x in batch.items() if name != "visits"}
        device = labels_B.device
        left = {name: x.to(device) for name, x in self._left.items()}
        fresh = self._fresh(len(labels_B), device)
        self._left = {"visits": visits_B}
        if not left or left["visits"].shape != visits_B.shape:
            return {**batch, **fresh}
        # The next sequence of the same text is the next example. Any other begins with an empty memory.
        goes_on_B = (labels_B == LATER) & (visits_B == left["visits"] + 1)

        def chosen(name: str) -> Tensor:
            rows = goes_on_B.view(-1, *(1,) * (fresh[name].dim() - 1))
            return torch.where(rows, left[name], fresh[name])

        return {**batch, **{name: chosen(name) for name in fresh}}

    def keep(self, output: RmaatCausalLMOutput, batch: dict[str, Any]) -> None:
        """Store the state after a batch that `inputs` returned."""
        size = self._model.config.tokens_per_segment
        segments_B = (batch["attention_mask"].sum(1) + size - 1) // size
        state = {"memory": output.memory, "readout": output.readout, "associations": output.associations}
        self._left |= {name: x.detach() for name, x in state.items() if x is not None}
        self._left["segment_offset"] = batch["segment_offset"] + segments_B

    def _fresh(self, rows: int, device: torch.device) -> dict[str, Tensor]:
        """Return the state before the first token of a text."""
        first_MD, config = self._model.rmaat.first_memory, self._model.config
        wide = torch.promote_types(first_MD.dtype, torch.float32)
        state = {
            "memory": first_MD.expand(rows, -1, -1),
            "readout": torch.zeros(rows, config.hidden_size + 1, dtype=wide, device=device),
            "segment_offset": torch.zeros(rows, dtype=torch.int64, device=device),
        }
        if config.associative_memory:
            state["associations"] = torch.zeros(rows, *config.associations_shape, dtype=wide, device=device)
        return state

    def save(self, checkpoint: Path, process: int) -> None:
        """Write what the last batch left into a checkpoint; each process has a file."""
        save_file({name: x.contiguous() for name, x in self._left.items()}, checkpoint / _file_name(process))

    def load(self, checkpoint: Path, process: int) -> None:
        """Read what `save` wrote."""
        self._left = load_file(checkpoint / _file_name(process))


def _file_name(process: int) -> str:
    return f"carried_memory_{process}.safetensors"
