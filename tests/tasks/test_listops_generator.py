"""The ListOps generator against a naive evaluator, the published statistics and itself under other conditions."""

import hashlib
import itertools
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaat.tasks.base import SPLITS, Counts
from rmaat.tasks.listops import LISTOPS, LISTOPS_SHORT, ListOps, parse, render
from rmaat.tasks.listops_generator import MALFORMED, MAX_DEPTH, Bounds, draw_block, evaluate, evaluate_all

# Of the three small files from seed 0: whenever it changes, so does every published data set; raise generator_version.
GOLDEN = "7ea99c4dc64e7c70359cd7f39c4eb9014df1fbf7439a4c439fbd3358ddbdaa91"
COUNTS = Counts(train=300, validation=20, test=30)

Tree = int | tuple[str, list["Tree"]]


def naive_value(tree: Tree) -> int:
    if isinstance(tree, int):
        return tree
    operator, children = tree
    values = sorted(naive_value(child) for child in children)
    if operator == "[MIN":
        return values[0]
    if operator == "[MAX":
        return values[-1]
    if operator == "[SM":
        return sum(values) % 10
    middle = len(values) // 2
    median = Fraction(values[middle]) if len(values) % 2 else Fraction(values[middle - 1] + values[middle], 2)
    return int(median)


def plain(tree: Tree) -> str:
    if isinstance(tree, int):
        return str(tree)
    return " ".join([tree[0], *map(plain, tree[1]), "]"])


def nested(tree: Tree) -> str:
    """The original files' form: a binary bracket around each step of an operator's list."""
    if isinstance(tree, int):
        return str(tree)
    text = tree[0]
    for part in [*map(nested, tree[1]), "]"]:
        text = f"( {text} {part} )"
    return text


def tree_of(words: list[str]) -> Tree:
    """Parse by recursion, eating words from the front."""
    word = words.pop(0)
    if not word.startswith("["):
        return int(word)
    children = []
    while words[0] != "]":
        children.append(tree_of(words))
    words.pop(0)
    return word, children


def depth_of(tree: Tree) -> int:
    return 1 if isinstance(tree, int) else 1 + max(map(depth_of, tree[1]))


def arity_range(tree: Tree) -> set[int]:
    return set() if isinstance(tree, int) else {len(tree[1])}.union(*map(arity_range, tree[1]))


trees = st.recursive(
    st.integers(0, 9),
    lambda children: st.tuples(
        st.sampled_from(["[MIN", "[MAX", "[MED", "[SM"]), st.lists(children, min_size=1, max_size=10)
    ),
    max_leaves=40,
)


@given(trees)
@settings(deadline=None)
def test_value_and_both_forms_agree_with_recursion(tree: Tree) -> None:
    ids = parse(plain(tree).encode())
    assert evaluate(np.frombuffer(ids, np.uint8)) == naive_value(tree)
    assert parse(nested(tree).encode()) == ids
    assert render(ids) == plain(tree).encode()


def test_nested_form_is_the_published_one() -> None:
    assert nested(("[MIN", [3, 4])) == "( ( ( [MIN 3 ) 4 ) ] )"


def test_median_of_an_even_count_is_cut() -> None:
    assert evaluate(np.frombuffer(parse(b"[MED 2 9 4 3 ]"), np.uint8)) == 3


@pytest.mark.parametrize("ids", [[], [10, 3], [3, 4], [10, 14], [14], [10, 3, 14, 14], [10, 3, 14, 5]])
def test_what_is_not_one_expression_is_malformed(ids: list[int]) -> None:
    assert evaluate(np.array(ids, np.uint8)) == MALFORMED


def test_statistics_are_those_of_the_definition() -> None:
    blocks = [draw_block(seed=3, stream=0, block=block, bounds=LISTOPS.bounds) for block in range(40)]
    lengths = np.concatenate([np.diff(offsets) for _, offsets, _ in blocks])
    values = np.concatenate([evaluate_all(tokens, offsets) for tokens, offsets, _ in blocks])
    shares = np.bincount(values, minlength=10) / len(values)
    assert lengths.min() > 500
    assert lengths.max() < 2000
    assert lengths.min() < 510
    assert lengths.max() > 1990
    # Figures of 22,574 trees kept by a separate, plainly recursive generator.
    assert len(lengths) / sum(drawn for _, _, drawn in blocks) == pytest.approx(0.0826, abs=0.003)
    assert lengths.mean() == pytest.approx(1036, abs=15)
    expected = [0.170, 0.090, 0.079, 0.084, 0.088, 0.086, 0.076, 0.074, 0.087, 0.167]
    assert shares == pytest.approx(expected, abs=0.015)


def test_unbounded_trees_follow_the_definition() -> None:
    # With all trees up to a generous length kept, the root is a digit three times in four, and digits are uniform.
    blocks = [draw_block(seed=1, stream=0, block=block, bounds=Bounds(1, 50_000)) for block in range(8)]
    words = [
        render(tokens[start:stop].tobytes()).decode().split()
        for tokens, offsets, _ in blocks
        for start, stop in itertools.pairwise(offsets)
    ]
    roots = list(map(tree_of, words))
    digits = [tree for tree in roots if isinstance(tree, int)]
    assert len(digits) / len(roots) == pytest.approx(0.75, abs=0.03)
    assert np.bincount(digits, minlength=10) / len(digits) == pytest.approx(0.1, abs=0.035)
    assert max(map(depth_of, roots)) == MAX_DEPTH
    assert set().union(*map(arity_range, roots)) == set(range(2, 11))


def test_giving_up_early_leaves_the_kept_trees_alone() -> None:
    def kept(bounds: Bounds) -> list[int]:
        blocks = [draw_block(7, 0, block, bounds) for block in range(60)]
        return [int(n) for _, offsets, _ in blocks for n in np.diff(offsets) if 40 <= n <= 192]

    early, late = kept(Bounds(40, 192)), kept(Bounds(40, 20_000))
    assert len(late) > 2000
    for share in (0.1, 0.5, 0.9):
        assert np.quantile(early, share) == pytest.approx(np.quantile(late, share), rel=0.06)


def digest_of(task: ListOps, folder: Path, seed: int = 0, counts: Counts = COUNTS, workers: int = 1) -> str:
    folder.mkdir()
    task.write(folder, seed, counts, workers, lambda done: None)
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in task.file_names)).hexdigest()


def test_files_depend_on_the_seed_alone(tmp_path: Path) -> None:
    one = digest_of(LISTOPS_SHORT, tmp_path / "one")
    assert one == GOLDEN
    assert digest_of(LISTOPS_SHORT, tmp_path / "many", workers=5) == one
    assert digest_of(LISTOPS_SHORT, tmp_path / "seed", seed=1) != one


def test_files_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, hashlib\n"
        "from rmaat.tasks.base import Counts\n"
        "from rmaat.tasks.listops import LISTOPS_SHORT as task\n"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir()\n"
        "task.write(folder, 0, Counts(300, 20, 30), 2, lambda done: None)\n"
        "files = b''.join((folder / name).read_bytes() for name in task.file_names)\n"
        "print(hashlib.sha256(files).hexdigest())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "files")],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == GOLDEN


def rows(folder: Path, name: str) -> list[str]:
    return (folder / name).read_text().splitlines()[1:]


def test_no_expression_comes_twice_and_parts_do_not_move(tmp_path: Path) -> None:
    # Nine or fewer digits under one operator: short enough for repetitions to be drawn all the time.
    tiny = ListOps("tiny", "", Bounds(4, 5), 5, (1, 1, 1))
    counts = Counts(train=1500, validation=200, test=300)
    digest_of(tiny, tmp_path / "tiny", counts=counts)
    sources = [row.split("\t")[0] for name in tiny.file_names for row in rows(tmp_path / "tiny", name)]
    assert len(sources) == counts.total() == len(set(sources))
    digest_of(tiny, tmp_path / "less", counts=Counts(train=100, validation=200, test=300))
    for name, split in zip(tiny.file_names, SPLITS, strict=True):
        fewer = rows(tmp_path / "less", name)
        assert fewer == rows(tmp_path / "tiny", name)[: len(fewer)], split


def test_written_lines_are_right(tmp_path: Path) -> None:
    digest_of(LISTOPS_SHORT, tmp_path / "short")
    for name in LISTOPS_SHORT.file_names:
        for row in rows(tmp_path / "short", name):
            source, target = row.split("\t")
            words = source.split(" ")
            assert 40 <= len(words) <= 192
            assert naive_value(tree_of(words)) == int(target)
            assert not words


@pytest.mark.slow
def test_a_hundred_thousand_take_less_than_four_minutes(tmp_path: Path) -> None:
    start = time.monotonic()
    digest_of(LISTOPS, tmp_path / "full", counts=Counts(*LISTOPS.info.sizes), workers=2)
    assert time.monotonic() - start < 240
