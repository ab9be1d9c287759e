"""Malicious pickles, and code, in every file of data that could hold one."""

import json
import pickle
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.stress.samples import PACKERS
from tests.stress.trials import Malicious


def attack_whole(path: Path, mark: Path, dice: random.Random) -> bool:
    """Replace a file by a pickle, packed as its name says."""
    content = pickle.dumps(Malicious(mark), protocol=dice.randrange(6))
    path.write_bytes(PACKERS.get(path.suffix, bytes)(content))
    return True


def attack_array(path: Path, mark: Path, dice: random.Random) -> bool:
    """Replace an array of an .npz file by one of objects, or any file by such an array."""
    attack = np.array([Malicious(mark)], object)
    if path.suffix != ".npz":
        with path.open("wb") as file:
            np.save(file, attack)
        return True
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **{**arrays, dice.choice(sorted(arrays)): attack})
    return True


def attack_batch(path: Path, mark: Path, dice: random.Random) -> bool:
    """Hide the attack in a batch of CIFAR-10, or call it by a name with dots."""
    if path.parent.name != "cifar-10-batches-py":
        return False
    batch = pickle.loads(path.read_bytes())
    if dice.random() < 0.5:
        content = pickle.dumps({**batch, dice.choice([b"data", b"labels", b"other"]): Malicious(mark)})
    else:
        module, name = dice.choice(
            [("numpy", "dtype.__init__"), ("builtins", "eval"), ("os", "mkdir"), ("numpy", "f2py.os.mkdir")]
        )
        words = [text.encode() for text in (module, name, str(mark))]
        pushed = b"".join(b"\x8c" + bytes([len(word)]) + word for word in words[:2])
        content = b"\x80\x04" + pushed + b"\x93\x8c" + bytes([len(words[2])]) + words[2] + b"\x85R."
    path.write_bytes(content)
    return True


def attack_tokenizer(path: Path, mark: Path, dice: random.Random) -> bool:
    """Add Python code and its name to a tokenizer's folder."""
    if path.parent.name != "tokenizer":
        return False
    (path.parent / "attack.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Attack: pass\n")
    names = {"AutoTokenizer": ["attack.Attack", "attack.Attack"], "AutoConfig": "attack.Attack"}
    for name in ("tokenizer_config.json", "config.json"):
        target = path.parent / name
        stored = json.loads(target.read_text()) if target.exists() else {"model_type": "attack"}
        changed = {**stored, "auto_map": names, "tokenizer_class": "Attack"}
        target.write_text(json.dumps(changed))
    return True


def attack_table(path: Path, mark: Path, dice: random.Random) -> bool:
    """Give a column of a Parquet file an extension type that is a pickle."""
    if path.suffix != ".parquet":
        return False
    table = pq.read_table(path)
    extension = {
        "ARROW:extension:name": "arrow.py_extension_type",
        "ARROW:extension:metadata": pickle.dumps(Malicious(mark)),
    }
    fields = [field.with_metadata(extension) for field in table.schema]
    pq.write_table(table.cast(pa.schema(fields)), path)
    return True


ATTACKS: Mapping[str, Callable[[Path, Path, random.Random], bool]] = {
    "whole file": attack_whole,
    "array of objects": attack_array,
    "batch": attack_batch,
    "code of a tokenizer": attack_tokenizer,
    "extension type": attack_table,
}
"""Functions that put an attack into a file; they return whether it can hold that attack."""
