"""The images can be learned from and their labels are right: a small convolutional network finds what they show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor, nn

from rmaat.tasks import TASKS, load
from rmaat.tasks.base import Counts, GeneratedTask
from rmaat.tasks.generate import generate
from rmaat.tasks.reader import TokenReader
from rmaat.training.config import RunConfig
from rmaat.training.run import train as train_run

BATCH = 100


def levels_of(part: Dataset) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    reader = TokenReader(part)
    return np.stack([example["input_ids"] for example in reader.__getitems__(range(len(reader)))]), reader.labels.copy()


def images_of(part: Dataset, name: str) -> tuple[Tensor, Tensor]:
    info = TASKS[name].info
    levels, labels = levels_of(part)
    values = (torch.from_numpy(levels).float() - info.value_mean) / info.value_std
    return values.view(len(labels), 1, *info.image_shape), torch.from_numpy(labels)


def network(classes: int) -> nn.Module:
    """Six convolutions in three resolutions; the last features see the whole image."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Linear(128, classes))


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int, peak_rate: float = 3e-3) -> None:
    """Epochs over all images, the rate up and down once."""
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images))[: len(images) // BATCH * BATCH].view(-1, BATCH):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        predicted = torch.cat([model(part).argmax(1) for part in images.split(BATCH)])
    return float((predicted == labels).float().mean())


def pathfinder(name: str, folder: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """100,000 images to train on and 2,000 to test with, and their labels."""
    task = TASKS[name]
    assert isinstance(task, GeneratedTask)
    generate(task, folder, 0, Counts(train=100_000, validation=2_000, test=2_000))
    dataset = load(name, folder)
    return images_of(dataset["train"], name), images_of(dataset["test"], name)


@pytest.fixture(scope="module")
def knows_easy(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, float]:
    """A network trained on easy Pathfinder, and its accuracy."""
    torch.manual_seed(0)
    model = network(2)
    (images, labels), test = pathfinder("pathfinder32_easy", tmp_path_factory.mktemp("easy"))
    # Few images seen often end the long plateau at chance; as many seen once do not.
    train(model, images[:20_000], labels[:20_000], epochs=14)
    train(model, images, labels, epochs=2, peak_rate=2e-3)
    return model, accuracy(model, *test)


@pytest.mark.slow
def test_easy_pathfinder_can_be_learned(knows_easy: tuple[nn.Module, float]) -> None:
    assert knows_easy[1] > 0.85


@pytest.mark.slow
def test_hard_pathfinder_can_be_learned(knows_easy: tuple[nn.Module, float], tmp_path: Path) -> None:
    """By way of the intermediate contours: from the easy ones straight to the hard ones it mostly stayed at chance."""
    model, _ = knows_easy
    for name in ("pathfinder32_intermediate", "pathfinder32"):
        (images, labels), test = pathfinder(name, tmp_path)
        train(model, images, labels, epochs=2, peak_rate=1e-3)
    assert accuracy(model, *test) > 0.6


@pytest.mark.slow
def test_easy_pathfinder_leaves_chance_with_rmaat(tmp_path: Path) -> None:
    """As its config says, for a third of its steps; guessing gives 50%, with a deviation of 0.35% on 20,000 images."""
    task = TASKS["pathfinder32_easy"]
    assert isinstance(task, GeneratedTask)
    generate(task, tmp_path, 0, Counts(train=160_000, validation=2_000, test=20_000))
    config = RunConfig.resolved({"recipe": "pathfinder32_easy"})
    run = replace(config, data_dir=str(tmp_path), output_dir=str(tmp_path / "run"), max_steps=2000)
    assert run.patch_size == 32
    assert train_run(run).metrics["test_accuracy"] > 0.55


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pathfinder32_easy", "pathfinder32_intermediate", "pathfinder32"])
def test_pathfinder_shows_nothing_to_a_linear_reader(name: str, tmp_path: Path) -> None:
    """Neither which levels there are nor where it is bright tells the classes apart: what is learned is the contours."""
    task = TASKS[name]
    assert isinstance(task, GeneratedTask)
    generate(task, tmp_path, 0, Counts(train=20_000, validation=2, test=10_000))
    dataset = load(name, tmp_path)
    (train_levels, train_labels), (test_levels, test_labels) = levels_of(dataset["train"]), levels_of(dataset["test"])
    levels = (train_levels, test_levels)
    histograms = [np.stack([np.bincount(row, minlength=256) for row in rows]) for rows in levels]
    for features in (levels, histograms):
        train, test = (np.concatenate([x, np.ones((len(x), 1))], axis=1, dtype=np.float64) for x in features)
        weights = np.linalg.lstsq(train, 2.0 * train_labels - 1, rcond=None)[0]
        found = np.mean((test @ weights > 0) == test_labels)
        assert abs(found - 0.5) < 4 * 0.5 / np.sqrt(len(test))


@pytest.mark.slow
def test_cifar10_can_be_learned(shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RMAAT_CACHE", str(tmp_path))
    torch.manual_seed(0)
    dataset = load("cifar10", shared_data)
    model = network(10)
    train(model, *images_of(dataset["train"].select(range(20_000)), "cifar10"), epochs=4)
    assert accuracy(model, *images_of(dataset["test"].select(range(2_000)), "cifar10")) > 0.55
