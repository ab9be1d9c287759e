r"""ListOps expressions, drawn as the Long Range Arena defines them (arXiv 2011.04006), from a seed.

$$\text{gen}(d) = \begin{cases}
\text{a digit, uniform in } 0..9 & d = 10, \text{ or with probability } 3/4 \text{ below} \\
\text{an operator, uniform, over } k \text{ children } \text{gen}(d + 1),\ k \text{ uniform in } 2..10 & \text{else}
\end{cases}$$

Trees are drawn from depth 1 and kept when their length lies within bounds; an operator's length is 2 plus that of its
children (it opens and closes), a digit's is 1. A root that is a digit has length 1 and is never kept.

The original's split depends on the interpreter's hash seed. Here examples come in blocks of fixed size, each from its
own random stream, so neither that nor the number of workers changes anything.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

MIN, MAX, MED, SM, CLOSE = range(10, 15)
"""Ids of the four opening operators and of the closing bracket; a digit is its own id."""

MAX_DEPTH = 10
OPERATOR_PROBABILITY = 0.25
FEWEST_CHILDREN, MOST_CHILDREN = 2, 10

BLOCK = 256
"""Examples drawn from one random stream; part of what a seed means."""

MALFORMED = -1
"""What `evaluate` gives for something that is not one whole expression."""


@dataclass(frozen=True)
class Bounds:
    """Shortest and longest expression kept, in tokens, both included."""

    shortest: int
    longest: int


@njit(nogil=True)
def _draw(rng: np.random.Generator, longest: int, tokens: NDArray[np.uint8]) -> int:
    """Draw one tree into `tokens`, in prefix order; returns its length, or 0 once it must exceed `longest`.

    Such a tree would be rejected anyway, so giving up early leaves the distribution of the kept ones alone.
    """
    undrawn = np.zeros(MAX_DEPTH + 1, np.int64)  # children still to come of each open operator
    depth, length, owed = 1, 0, 1  # owed: nodes that are sure to come
    while True:
        undrawn[depth - 1] -= 1
        if depth < MAX_DEPTH and rng.random() < OPERATOR_PROBABILITY:
            children = FEWEST_CHILDREN + int(rng.random() * (MOST_CHILDREN - FEWEST_CHILDREN + 1))
            tokens[length] = MIN + int(rng.random() * 4)
            undrawn[depth] = children
            owed += children - 1
            depth += 1
        else:
            tokens[length] = int(rng.random() * 10)
            owed -= 1
        length += 1
        if length + owed + depth - 1 > longest:
            return 0
        while depth > 1 and undrawn[depth - 1] == 0:
            tokens[length] = CLOSE
            length += 1
            depth -= 1
        if depth == 1:
            return length


@njit(nogil=True)
def _apply(operator: int, values: NDArray[np.int64]) -> int:
    """The operator's value; sorts `values` in place."""
    # Plain loops: the library's sort and reductions take seconds to compile.
    total = 0
    for i in range(len(values)):
        total += values[i]
        for j in range(i, 0, -1):
            if values[j - 1] <= values[j]:
                break
            values[j - 1], values[j] = values[j], values[j - 1]
    if operator == MIN:
        return values[0]
    if operator == MAX:
        return values[-1]
    if operator == SM:
        return total % 10
    return (values[(len(values) - 1) // 2] + values[len(values) // 2]) // 2


@njit(nogil=True)
def evaluate(tokens: NDArray[np.uint8]) -> int:
    """Value 0..9 of an expression, ids (N,) 0..14; `MALFORMED` where the ids are not one whole expression.

    MED is the median, its half cut off; SM the sum modulo 10.
    """
    values = np.empty(len(tokens), np.int64)  # the values awaiting their operator
    operators = np.empty(len(tokens), np.int64)
    starts = np.empty(len(tokens), np.int64)  # where each open operator's values begin
    num_values, depth = 0, 0
    for i in range(len(tokens)):
        token = tokens[i]
        if depth == 0 and i > 0:
            return MALFORMED
        if token < 10:
            values[num_values] = token
            num_values += 1
        elif token < CLOSE:
            operators[depth] = token
            starts[depth] = num_values
            depth += 1
        else:
            if depth == 0 or starts[depth - 1] == num_values:
                return MALFORMED
            depth -= 1
            start = starts[depth]
            values[start] = _apply(operators[depth], values[start:num_values])
            num_values = start + 1
    if depth != 0 or num_values != 1:
        return MALFORMED
    return values[0]


@njit(nogil=True)
def evaluate_all(tokens: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Values (B,) of B expressions laid end to end, the i-th being `tokens[offsets[i]:offsets[i + 1]]`."""
    values = np.empty(len(offsets) - 1, np.int64)
    for i in range(len(values)):
        values[i] = evaluate(tokens[offsets[i] : offsets[i + 1]])
    return values


@njit(nogil=True)
def _draw_block(
    rng: np.random.Generator, shortest: int, longest: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Draw until `count` trees are kept: their tokens end to end, their offsets (count + 1,), and the trees drawn."""
    tokens = np.empty(count * longest + 1, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    kept, drawn = 0, 0
    while kept < count:
        start = offsets[kept]
        length = _draw(rng, longest, tokens[start:])
        drawn += 1
        if length >= shortest:
            kept += 1
            offsets[kept] = start + length
    return tokens[: offsets[count]].copy(), offsets, drawn


def draw_block(seed: int, stream: int, block: int, bounds: Bounds) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Block number `block` of a stream: `BLOCK` expressions end to end, offsets (BLOCK + 1,), and trees drawn."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, block))
    return _draw_block(np.random.Generator(np.random.PCG64(sequence)), bounds.shortest, bounds.longest, BLOCK)


def _blocks(seed: int, stream: int, bounds: Bounds, workers: int) -> Iterator[list[bytes]]:
    # Threads are enough: the compiled loops release the interpreter's lock. A short queue keeps memory bounded.
    with ThreadPoolExecutor(workers) as pool:
        queue: deque[Future[tuple[NDArray[np.uint8], NDArray[np.int64], int]]] = deque()
        for block in itertools.count():
            queue.append(pool.submit(draw_block, seed, stream, block, bounds))
            if len(queue) > 2 * workers:
                tokens, offsets, _ = queue.popleft().result()
                yield [tokens[start:stop].tobytes() for start, stop in itertools.pairwise(offsets)]


def expressions(seed: int, stream: int, bounds: Bounds, workers: int, seen: set[bytes]) -> Generator[bytes, None, None]:
    """An endless stream of distinct expressions, the ids as bytes.

    `seen` holds the digests of expressions that must not come again; those given out are added to it.
    """
    for block in _blocks(seed, stream, bounds, workers):
        for tokens in block:
            digest = hashlib.blake2b(tokens, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield tokens
