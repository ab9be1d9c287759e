"""Write the papers and pairs of `aan_lite` in the form of the Long Range Arena's release of Retrieval.

    python benchmarks/official_aan.py --data_dir datasets

With these files the task `aan` runs without the release. Its results are those of `aan_lite`'s
papers in `aan`'s form.
"""

import argparse
import gzip
import json
import lzma
from pathlib import Path

BYTES = 4000
"""Length to which each paper is truncated."""


def main() -> None:
    """Write `DATA_DIR/aan/new_aan_pairs.{train,eval,test}.tsv`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with the four files of aan_lite")
    folder: Path = parser.parse_args().data_dir
    texts = {}
    with lzma.open(folder / "aan_lite_docs.jsonl.xz", "rt", encoding="utf-8") as papers:
        for line in papers:
            paper = json.loads(line)
            # Truncation may cut a character in two, which "ignore" removes.
            text = paper["text"].encode()[:BYTES].decode(errors="ignore")
            texts[paper["id"]] = " ".join(text.split())
    target = folder / "aan"
    target.mkdir(exist_ok=True)
    for part in ("train", "eval", "test"):
        path = target / f"new_aan_pairs.{part}.tsv"
        with gzip.open(folder / f"aan_lite_pairs.{part}.tsv.gz", "rt") as pairs, path.open("w") as out:
            for line in pairs:
                label, first, second = line.split()
                out.write("\t".join([f"{float(label)}", first, second, texts[first], texts[second]]) + "\n")
        print(path)


if __name__ == "__main__":
    main()
