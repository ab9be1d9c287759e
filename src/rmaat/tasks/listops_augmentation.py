"""Random orders of the operands of ListOps expressions, which keep value and length."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from rmaat.tasks.listops_generator import CLOSE, MIN


@njit(nogil=True)
def shuffled_operands(rng: np.random.Generator, ids_N: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a ListOps expression with the operands of every operator in random order.

    All operators are symmetric, so the value stays. The ids may be the beginning of a longer
    expression that was cut. Then they become the beginning of another one of the same value: the
    operand in which the cut lies stays the last.

    Args:
        rng: source of all draws.
        ids_N: (N,) ids 0..14, an expression or the beginning of one.
    """
    size = len(ids_N)
    # For each digit and operator: the index after its last token, and whether the cut is after it.
    stops_N = np.full(size, size, np.int64)
    whole_N = np.zeros(size, np.bool_)
    open_operators = np.empty(size, np.int64)
    depth = 0
    for i in range(size):
        if MIN <= ids_N[i] < CLOSE:
            open_operators[depth] = i
            depth += 1
            continue
        first = i
        if ids_N[i] == CLOSE:
            depth -= 1
            first = open_operators[depth]
        stops_N[first] = i + 1
        whole_N[first] = True

    shuffled_N = ids_N.copy()
    # A stack of digits and operators that are still to be written: their first index in `ids_N`,
    # and their first index in the result.
    sources, targets = np.empty(size, np.int64), np.empty(size, np.int64)
    operands = np.empty(size, np.int64)
    waiting = 0
    if size > 0:
        sources[0] = targets[0] = 0
        waiting = 1
    while waiting > 0:
        waiting -= 1
        source, target = sources[waiting], targets[waiting]
        shuffled_N[target] = ids_N[source]
        if ids_N[source] < MIN:
            continue
        stop = stops_N[source] - 1 if whole_N[source] else size
        count, place = 0, source + 1
        while place < stop:
            operands[count] = place
            count += 1
            place = stops_N[place]
        # The operand with the cut must stay at the end.
        movable = count if count == 0 or whole_N[operands[count - 1]] else count - 1
        for i in range(movable - 1, 0, -1):
            j = int(rng.random() * (i + 1))
            operands[i], operands[j] = operands[j], operands[i]
        target += 1
        for i in range(count):
            sources[waiting], targets[waiting] = operands[i], target
            waiting += 1
            target += stops_N[operands[i]] - operands[i]
        if whole_N[source]:
            shuffled_N[target] = CLOSE
    return shuffled_N
