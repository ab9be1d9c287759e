"""How many tokens a second come out of the loader for each task whose data is there, with a model that does nothing.

    python benchmarks/loader.py --output results/loader [--data_dir D] [--batch_size 32] [--seconds 3] [--workers 0] [TASK ...]

The order is random and the batches are padded to whole segments of 512, as in training; only tokens are counted, not
padding. Prints a Markdown table, writes loader.json.
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
    """Tokens of whole batches over the time from the first batch to the last."""
    loader = DataLoader(reader, batch_size, shuffle=True, collate_fn=collator, num_workers=workers, drop_last=True)
    tokens, started = 0, 0.0
    while True:
        for batch in loader:
            if not started:
                started = time.perf_counter()  # starting processes and mapping the file are not counted
                continue
            # Not by torch, whose threads wait for one another where the machine is shared: counting is not loading.
            tokens += sum(np.count_nonzero(mask.numpy()) for name, mask in batch.items() if name.endswith("_mask"))
            passed = time.perf_counter() - started
            if passed > seconds:
                return tokens / passed


def main() -> None:
    """Measure, print, write JSON."""
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
        except UserError as missing:
            if arguments.tasks:
                raise
            print(f"| {name} | no data: {str(missing).split(';')[0]} | |")
            continue
        info = TASKS[name].info
        ways = {"input_ids": Collator(SEGMENT)}
        if info.value_mean is not None and info.value_std is not None:
            ways["input_values"] = Collator(SEGMENT, normalise=(info.value_mean, info.value_std))
        if info.pair:
            ways["input_ids, one row a pair"] = Collator(SEGMENT, separator=info.separator)
        for emits, collator in ways.items():
            speed = tokens_per_second(reader, collator, arguments.batch_size, arguments.seconds, arguments.workers)
            rows.append({"task": name, "emits": emits, "tokens_per_second": round(speed)})
            print(f"| {name} | {emits} | {speed / 1e6:,.1f} |", flush=True)
    found = {
        **provenance(),
        "batch_size": arguments.batch_size,
        "seconds": arguments.seconds,
        "workers": arguments.workers,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "loader.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
