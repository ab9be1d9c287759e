"""The images can be learned from and their labels are right: a small convolutional network finds what they show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor, nn

from rmaat.tasks import TASKS, load
from rmaat.tasks.base import Counts, GeneratedTask
from rmaat.tasks.generate import generate
from rmaat.tasks.reader import TokenReader

BATCH = 100


def images_of(part: Dataset, name: str) -> tuple[Tensor, Tensor]:
    info = TASKS[name].info
    reader = TokenReader(part)
    levels = np.stack([example["input_ids"] for example in reader.__getitems__(range(len(reader)))])
    values = (torch.from_numpy(levels).float() - info.value_mean) / info.value_std
    return values.view(len(reader), 1, *info.image_shape), torch.from_numpy(reader.labels.copy())


def network(classes: int) -> nn.Module:
    """Six convolutions in three resolutions; the last features see the whole image."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, classes))


def accuracy_of_a_small_network(name: str, data_dir: Path, examples: int, epochs: int) -> float:
    torch.manual_seed(0)
    dataset = load(name, data_dir)
    images, labels = images_of(dataset["train"].select(range(examples)), name)
    model = network(len(TASKS[name].info.label_names))
    steps = epochs * (examples // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(examples)[: examples // BATCH * BATCH].view(-1, BATCH):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    test_images, test_labels = images_of(dataset["test"].select(range(2_000)), name)
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in test_images.split(BATCH)])
    return float((predicted == test_labels).float().mean())


@pytest.mark.slow
def test_easy_pathfinder_can_be_learned(tmp_path: Path) -> None:
    # 71% after these six passes; chance is 50%.
    task = TASKS["pathfinder32_easy"]
    assert isinstance(task, GeneratedTask)
    generate(task, tmp_path, 0, Counts(train=20_000, validation=2_000, test=2_000))
    assert accuracy_of_a_small_network("pathfinder32_easy", tmp_path, examples=20_000, epochs=6) > 0.65


@pytest.mark.slow
def test_cifar10_can_be_learned(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path))
    assert accuracy_of_a_small_network("cifar10", shared_data, examples=20_000, epochs=4) > 0.55
