"""Measure a segment's temporary memory beside the activations that it saves for its backward pass.

    python benchmarks/in_flight.py --output results/in_flight

Temporary memory holds gradients of activations during the backward pass and intermediate tensors
during the forward pass. PyTorch's profiler records every allocation on a CPU, so both are exact.
They are printed as a share of the bytes that the segment saves. `IN_FLIGHT` in
`rmaat.backprop.replay` is an upper bound of the shares. The gradient of a parameter counts until it
is added to its sum, as in replay. Prints a Markdown table, writes in_flight.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from rmaat.backprop import Recurrence, Tensors
from rmaat.backprop.replay import IN_FLIGHT
from rmaat.backprop.segment_memory import saved_bytes
from rmaat.machine.provenance import provenance
from rmaat.models import RmaatConfig, RmaatModel

BACKWARD = "backward pass of the segment"


@dataclass(frozen=True)
class Case:
    """A model and a segment length; the feed-forward width is `expansion * hidden_size`."""

    attention_type: str
    num_hidden_layers: int
    batch: int
    segment_length: int = 512
    hidden_size: int = 128
    expansion: int = 4
    bf16: bool = False


ATTENTION_TYPES = ("astro", "softmax")
CASES = [
    case
    for attention_type in ATTENTION_TYPES
    for case in (
        *(Case(attention_type, layers, batch) for layers in (4, 2, 1) for batch in (8, 1)),
        Case(attention_type, 1, 8, bf16=True),
        Case(attention_type, 1, 8, expansion=1),
        Case(attention_type, 1, 8, segment_length=64),
        Case(attention_type, 1, 1, segment_length=64),
    )
]


class _Capture:
    """Backpropagation method that runs the model's recurrence and stores it."""

    recomputes = False

    def __call__(self, recurrence: Recurrence) -> Tensors:
        self.recurrence = recurrence
        return recurrence.run_all()


def measure(case: Case) -> dict[str, float | int]:
    """Return the bytes that a segment saves, and the temporary shares of both passes."""
    torch.manual_seed(0)
    config = RmaatConfig(
        max_seq_len=2 * case.segment_length,
        num_segments=2,
        hidden_size=case.hidden_size,
        intermediate_size=case.expansion * case.hidden_size,
        num_hidden_layers=case.num_hidden_layers,
        num_attention_heads=4,
        attention_type=case.attention_type,
        retention_schedule="none",
    )
    model = RmaatModel(config).train()
    model.backprop = capture = _Capture()
    with torch.no_grad():
        model(torch.randint(0, config.vocab_size, (case.batch, config.max_seq_len)))
    shared = tuple(x.detach().requires_grad_() for x in capture.recurrence.shared)
    recurrence = replace(capture.recurrence, shared=shared)
    state = tuple(x.detach().requires_grad_() for x in recurrence.state)
    summed = [x for x in (*recurrence.parameters, *shared) if x.requires_grad]
    for tensor in summed:
        # Replay adds each gradient to its sum at once and frees it. Free it here as well.
        tensor.register_hook(lambda grad: grad.new_zeros(()).expand(grad.shape))

    def step() -> int:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16, cache_enabled=False):
            after = recurrence.run(1, 2, state)
        saved = saved_bytes(after, (*recurrence.parameters, *shared, *recurrence.segments, *state))
        outputs = [x for x in after if x.requires_grad]
        with record_function(BACKWARD):
            grads = [torch.ones_like(x) for x in outputs]
            torch.autograd.grad(outputs, [*summed, *state], grads, allow_unused=True)
        return saved

    # The first step also allocates caches and loads kernels, so do not measure it.
    step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        saved = step()
    forward, backward = _levels(recorded)
    return {
        "saved_bytes": saved,
        "forward": round(max(forward) / saved - 1, 3),
        "backward": round(max(backward) / saved - 1, 3),
    }


def _levels(recorded: profile) -> tuple[list[int], list[int]]:
    """Return the allocated bytes after each allocation, of the forward and the backward pass."""
    assert recorded.profiler is not None
    events = recorded.profiler.kineto_results.events()
    begin = next(event.start_ns() for event in events if event.name() == BACKWARD)
    levels: tuple[list[int], list[int]] = ([], [])
    level = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            level += event.nbytes()
            levels[event.start_ns() >= begin].append(level)
    return levels


def measure_all(cases: Sequence[Case] = CASES) -> list[dict[str, object]]:
    """Measure each case and print its row of the table."""
    rows: list[dict[str, object]] = []
    for case in cases:
        row = {**asdict(case), **measure(case)}
        if not rows:
            print(f"| {' | '.join(row)} |\n{'|---' * len(row)}|")
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure all cases, print the table, and write the JSON file."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for in_flight.json")
    arguments = parser.parse_args()
    result = {**provenance(), "bound": IN_FLIGHT, "rows": measure_all()}
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "in_flight.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
