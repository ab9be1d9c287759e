"""Compare the recipe `files` with what one would use instead, on real documents.

    python benchmarks/documents.py --data_dir DATA --output results/documents [--sets imdb imdb_4000 novels]

Sets, made from IMDb and 100 English novels: `imdb` is the official split; `imdb_4000` has 4,000
reviews of its train part and 2,000 of its test part; `novels` has passages of ten novelists, two
books each to train on and another one to be tested. Rivals: TF-IDF with logistic regression, and
the mean of word embeddings before a linear layer. Writes documents.json, and the runs to OUTPUT/runs.
"""

import argparse
import json
import lzma
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rmaat.machine.files import write_json
from rmaat.machine.provenance import provenance
from rmaat.training.config import RunConfig
from rmaat.training.run import train

Document = tuple[str, str]
"""Text and label."""

WORDS = 20_000
WIDTH = 64
EPOCHS, FEWEST_STEPS = 3, 1000


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a compressed file of JSON Lines."""
    with lzma.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def imdb(data: Path) -> dict[str, list[Document]]:
    """Return the official train and test parts of IMDb."""
    parts = ("train", "test")
    return {part: [(r["text"], str(r["label"])) for r in records(data / f"imdb_{part}.jsonl.xz")] for part in parts}


def imdb_4000(data: Path) -> dict[str, list[Document]]:
    """Return 4,000 and 2,000 drawn reviews."""
    draw, parts = random.Random(0), imdb(data)
    return {part: draw.sample(parts[part], count) for part, count in (("train", 4000), ("test", 2000))}


def novels(data: Path) -> dict[str, list[Document]]:
    """Return passages of 20,000 to 60,000 characters; the first book of each novelist by name is tested."""
    by_author = defaultdict(list)
    for book in records(data / "novels100.jsonl.xz"):
        by_author[book["author"]].append(book)
    sizes = {author: sum(len(book["text"]) for book in books) for author, books in by_author.items()}
    draw, parts = random.Random(0), dict[str, list[Document]](train=[], test=[])
    for author in sorted(sizes, key=lambda name: (-sizes[name], name))[:10]:
        for index, book in enumerate(sorted(by_author[author], key=lambda book: book["name"])):
            start = 0
            while start + 20_000 <= len(book["text"]):
                size = draw.randint(20_000, 60_000)
                parts["train" if index else "test"].append((book["text"][start : start + size], author))
                start += size
    draw.shuffle(parts["train"])
    return parts


SETS = {"imdb": imdb, "imdb_4000": imdb_4000, "novels": novels}


def mean_of_embeddings(train_part: list[Document], test_part: list[Document]) -> float:
    """Return the accuracy of a linear layer on the mean of the embeddings of a text's words."""
    torch.manual_seed(0)
    words = [re.findall(r"\w+|[^\w\s]", text.lower()) for text, _ in train_part]
    known = {word: i for i, (word, _) in enumerate(Counter(w for text in words for w in text).most_common(WORDS))}
    labels = sorted({label for _, label in train_part})

    def encode(texts: Iterable[list[str]]) -> list[Tensor]:
        return [torch.tensor([known[word] for word in text if word in known], dtype=torch.long) for text in texts]

    model = nn.Sequential(nn.EmbeddingBag(len(known), WIDTH), nn.Linear(WIDTH, len(labels)))
    nn.init.normal_(model[0].weight, std=0.02)
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)

    def logits(texts: list[Tensor]) -> Tensor:
        ends = torch.tensor([0, *map(len, texts[:-1])]).cumsum(0)
        return model[1](model[0](torch.cat(texts), ends))

    texts, targets = encode(words), torch.tensor([labels.index(label) for _, label in train_part])
    for _ in range(max(EPOCHS, -(-FEWEST_STEPS * 32 // len(texts)))):
        for rows in torch.randperm(len(texts)).split(32):
            loss = cross_entropy(logits([texts[i] for i in rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    tested = encode(re.findall(r"\w+|[^\w\s]", text.lower()) for text, _ in test_part)
    with torch.no_grad():
        answers = torch.cat([logits([text]).argmax(1) for text in tested]).tolist()
    correct = sum(labels[answer] == label for answer, (_, label) in zip(answers, test_part, strict=True))
    return correct / len(test_part)


def measure(name: str, parts: dict[str, list[Document]], output: Path) -> dict[str, Any]:
    """Return the accuracies of all on one set."""
    paths = {}
    for part, documents in parts.items():
        paths[part] = output / "runs" / f"{name}_{part}.jsonl"
        paths[part].parent.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in documents)
        paths[part].write_text("".join(lines), encoding="utf-8")
    files = {f"{part}_file": str(path) for part, path in paths.items()}
    run = {"recipe": "files", "output_dir": str(output / "runs" / name), "overwrite": True, **files}
    started = time.perf_counter()
    metrics = train(RunConfig.resolved(run)).metrics
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    embeddings = mean_of_embeddings(parts["train"], parts["test"])
    return {
        "set": name,
        **{f"{part}_documents": len(documents) for part, documents in parts.items()},
        "classes": len({label for _, label in parts["train"]}),
        "rmaat": metrics["test_accuracy"],
        "rmaat_seconds": round(seconds),
        "tfidf": metrics["test_tfidf_accuracy"],
        "mean_of_embeddings": embeddings,
        "mean_of_embeddings_seconds": round(time.perf_counter() - started),
        "commonest_class": metrics["test_majority_accuracy"],
        "calibration_error": metrics["test_calibration_error"],
    }


def main() -> None:
    """Measure the sets and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        rows.append(measure(name, SETS[name](arguments.data_dir), arguments.output))
        print(json.dumps(rows[-1]), flush=True)
        write_json(arguments.output / "documents.json", {**provenance(), "rows": rows})


if __name__ == "__main__":
    main()
