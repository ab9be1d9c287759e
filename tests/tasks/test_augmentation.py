"""Random changes of training examples: labels by the project's evaluator, images by plain NumPy."""

import pickle
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from rmaat.tasks import TASKS
from rmaat.tasks.image_augmentation import ImageAugmentation
from rmaat.tasks.listops import LISTOPS, LISTOPS_SHORT
from rmaat.tasks.listops_augmentation import shuffled_operands
from rmaat.tasks.listops_generator import Bounds, draw_block, evaluate

Tree = int | tuple[int, list["Tree"]]

CIFAR10, MNIST, FASHION_MNIST, PATHFINDER = (
    TASKS[name].augmentation() for name in ("cifar10", "mnist", "fashion_mnist", "pathfinder32")
)


def expressions(bounds: Bounds) -> Iterator[NDArray[np.uint8]]:
    """Drawn expressions, read-only like those of a mapped file."""
    tokens, offsets, _ = draw_block(0, 0, 0, bounds)
    tokens.flags.writeable = False
    return (tokens[start:stop] for start, stop in pairwise(offsets))


def tree(ids: list[int]) -> Tree:
    """The expression of ids, which are removed."""
    first = ids.pop(0)
    if first < 10:
        return first
    operands = []
    while ids[0] != 14:
        operands.append(tree(ids))
    ids.pop(0)
    return first, operands


def unordered(node: Tree) -> str:
    """A text that is equal for trees that differ in the order of operands only."""
    return str(node) if isinstance(node, int) else f"{node[0]}({' '.join(sorted(map(unordered, node[1])))})"


@pytest.mark.parametrize("bounds", [Bounds(3, 40), Bounds(501, 1999)])
def test_a_shuffled_expression_has_the_same_operands_and_the_same_value(bounds):
    rng, changed = np.random.default_rng(0), 0
    for ids in expressions(bounds):
        before = ids.copy()
        shuffled = shuffled_operands(rng, ids)
        assert (shuffled.dtype, shuffled.shape) == (ids.dtype, ids.shape)
        assert evaluate(shuffled) == evaluate(ids)
        assert unordered(tree(shuffled.tolist())) == unordered(tree(ids.tolist()))
        assert np.array_equal(ids, before)
        changed += not np.array_equal(shuffled, ids)
    assert changed > 200


def test_the_orders_of_all_operands_are_drawn_equally_often():
    ids = LISTOPS.encode("[SM 1 [MAX 2 3 ] 4 ]")
    rng = np.random.default_rng(0)
    counts = Counter(LISTOPS.decode(shuffled_operands(rng, ids)) for _ in range(6000))
    assert len(counts) == 12
    for count in counts.values():
        assert abs(count - 500) < 5 * (500 * 11 / 12) ** 0.5


def test_a_cut_expression_is_the_beginning_of_another_one_of_the_same_value():
    rng, changed = np.random.default_rng(0), 0
    for ids in expressions(Bounds(20, 60)):
        for cut in range(len(ids)):
            shuffled = shuffled_operands(rng, ids[:cut])
            assert len(shuffled) == cut
            assert evaluate(np.concatenate([shuffled, ids[cut:]])) == evaluate(ids)
            changed += not np.array_equal(shuffled, ids[:cut])
    assert changed > 1000


def plain_changes(image: NDArray[np.uint8], shift: int, symmetries: int) -> set[bytes]:
    """All shifts of an image (rows, columns), in all of its first symmetries."""
    rows, columns = image.shape
    padded = np.pad(image, shift, mode="reflect")
    changes = set()
    for down in range(2 * shift + 1):
        for right in range(2 * shift + 1):
            shifted = padded[down : down + rows, right : right + columns]
            forms = [shifted, np.fliplr(shifted)]
            forms += [np.rot90(form, turns) for turns in (1, 2, 3) for form in forms[:2]]
            changes |= {form.tobytes() for form in forms[:symmetries]}
    return changes


@pytest.mark.parametrize(
    ("augmentation", "shape", "shift", "symmetries"),
    [
        (CIFAR10, (32, 32), 4, 2),
        (MNIST, (28, 28), 2, 1),
        (FASHION_MNIST, (28, 28), 2, 2),
        (PATHFINDER, (32, 32), 0, 8),
        (ImageAugmentation((3, 5), shift=1, mirror=True), (3, 5), 1, 2),
    ],
)
def test_a_changed_image_is_a_shift_and_a_symmetry_and_each_is_drawn(augmentation, shape, shift, symmetries):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, np.uint8)
    image.flags.writeable = False
    expected = plain_changes(image, shift, symmetries)
    drawn = Counter(augmentation(rng, image.reshape(-1)).tobytes() for _ in range(20 * len(expected)))
    assert drawn.keys() == expected
    assert len(expected) == (2 * shift + 1) ** 2 * symmetries
    assert max(drawn.values()) < 60


def test_only_tasks_with_a_change_that_keeps_the_label_have_one():
    names = {name for name in TASKS.names() if TASKS[name].augmentation() is not None}
    pathfinders = {"pathfinder32", "pathfinder32_intermediate", "pathfinder32_easy"}
    assert names == {"listops", "listops_short", "cifar10", "mnist", "fashion_mnist", *pathfinders}


@pytest.mark.parametrize("name", ["listops", "cifar10"])
def test_an_augmentation_reaches_other_processes(name):
    augmentation = TASKS[name].augmentation()
    ids = LISTOPS_SHORT.encode("[MAX 1 2 3 ]") if name == "listops" else np.arange(1024, dtype=np.uint16)
    copy = pickle.loads(pickle.dumps(augmentation))
    one, other = (change(np.random.default_rng(3), ids) for change in (augmentation, copy))
    assert np.array_equal(one, other)
