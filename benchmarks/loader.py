"""Measure the loader's tokens per second for each task that has data, without a model.

    python benchmarks/loader.py --output results/loader [--data_dir D] [--batch_size 32] [TASK ...]

As in training, the order is random and batches are padded to whole segments of 512. Padding does
not count. Prints a Markdown table, writes loader.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from rmaat.errors import UserError
from rmaat.machine.provenance import provenance
from rmaat.tasks import TASKS, data_folder, load
from rmaat.tasks.collate import Collator
from rmaat.tasks.reader import TokenReader

SEGMENT = 512


def tokens_per_second(reader: TokenReader, collator: Collator, batch_size: int, seconds: float, workers: int) -> float:
    """Return the tokens per second of whole batches, from the first batch to the last."""
    loader = DataLoader(reader, batch_size, shuffle=True, collate_fn=collator, num_workers=workers, drop_last=True)
    tokens, started = 0, 0.0
    while True:
        for batch in loader:
            if not started:
                # The time before the first batch starts processes and maps the file. Leave it out.
                started = time.perf_counter()
                continue
            # Count with NumPy: torch's threads wait for each other on a shared machine.
            tokens += sum(np.count_nonzero(mask.numpy()) for name, mask in batch.items() if name.endswith("_mask"))
            elapsed = time.perf_counter() - started
            if elapsed > seconds:
                return tokens / elapsed


def main() -> None:
    """Measure all tasks, print the table, and write the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--output", type=Path, required=True, help="folder for loader.json")
    parser.add_argument("--data_dir")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    print("| task | emits | million tokens a second |\n| --- | --- | ---: |")
    for name in arguments.tasks or TASKS.names():
        try:
            reader = TokenReader(load(name, data_folder(arguments.data_dir))["train"])
        except UserError as error:
            # Only tasks that the command line names must have data.
            if arguments.tasks:
                raise
            print(f"| {name} | no data: {str(error).split(';')[0]} | |")
            continue
        info = TASKS[name].info
        collators = {"input_ids": Collator(SEGMENT)}
        if info.value_mean is not None and info.value_std is not None:
            statistics = (info.value_mean, info.value_std)
            collators["input_values"] = Collator(SEGMENT, normalise=statistics)
        if info.pair:
            collators["input_ids, one row a pair"] = Collator(SEGMENT, separator=info.separator)
        for emits, collator in collators.items():
            speed = tokens_per_second(reader, collator, arguments.batch_size, arguments.seconds, arguments.workers)
            rows.append({"task": name, "emits": emits, "tokens_per_second": round(speed)})
            print(f"| {name} | {emits} | {speed / 1e6:,.1f} |", flush=True)
    result = {
        **provenance(),
        "batch_size": arguments.batch_size,
        "seconds": arguments.seconds,
        "workers": arguments.workers,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "loader.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
