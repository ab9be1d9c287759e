"""Two processes over gloo: gradients of replay under DDP equal one process with the whole batch."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from rmaat import RmaatConfig, RmaatForSequenceClassification

WORLD = 2


def build():
    torch.manual_seed(0)
    config = RmaatConfig(
        vocab_size=16,
        num_labels=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_seq_len=32,
        num_segments=4,
        hidden_dropout_prob=0.0,
        retention_schedule="learned",
    )
    return RmaatForSequenceClassification(config).double().train()


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 16, (4, 32), generator=generator)
    mask = (torch.arange(32) < torch.tensor([32, 9, 25, 8])[:, None]).long()
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 2, 3])}


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(f"{folder}/store", WORLD)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=WORLD)
    try:
        model = DistributedDataParallel(build())
        reduced = []
        for name, parameter in model.module.named_parameters():
            parameter.register_post_accumulate_grad_hook(lambda _, name=name: reduced.append(name))
        mine = {key: x[rank * 2 : rank * 2 + 2] for key, x in batch().items()}
        model(**mine).loss.backward()
        assert len(reduced) == len(set(reduced)) == len(list(model.parameters()))
        torch.save({name: p.grad for name, p in model.module.named_parameters()}, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_ddp_gradients_equal_one_process(tmp_path: Path):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    model = build()
    model(**batch()).loss.backward()
    mp.spawn(worker, (str(tmp_path),), WORLD)
    for rank in range(WORLD):
        found = torch.load(tmp_path / f"{rank}.pt")
        for name, parameter in model.named_parameters():
            assert (found[name] - parameter.grad).norm() <= 1e-12 * parameter.grad.norm(), name
