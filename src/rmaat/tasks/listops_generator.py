r"""Draw ListOps expressions from a seed, as the Long Range Arena defines them (arXiv 2011.04006).

$$\text{gen}(d) = \begin{cases}
\text{a digit, uniform in } 0..9 & d = 10, \text{ or with probability } 3/4 \text{ below} \\
\text{an operator, uniform, over } k \text{ children } \text{gen}(d + 1),\ k \text{ uniform in } 2..10 & \text{else}
\end{cases}$$

Trees are drawn from depth 1 and accepted if their length lies within bounds. A digit has length 1;
an operator has length 2, because it opens and closes, plus the lengths of its children. A root that
is a digit has length 1 and is never accepted.

The original's split depends on the interpreter's hash seed. Here examples are drawn in blocks of
fixed size, each from its own random stream, so they depend neither on that nor on the number of
workers.
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
"""The value of `evaluate` for ids that are not one whole expression."""


@dataclass(frozen=True)
class Bounds:
    """Shortest and longest accepted expression, in tokens, both included."""

    shortest: int
    longest: int


@njit(nogil=True)
def _draw(rng: np.random.Generator, longest: int, tokens: NDArray[np.uint8]) -> int:
    """Draw one tree into `tokens`, in prefix order, and return its length.

    Return 0 once the tree must exceed `longest`. Such a tree would be rejected anyway, so stopping
    early does not change the distribution of accepted trees.
    """
    # By depth: children of the open operator that are still to be drawn.
    undrawn = np.zeros(MAX_DEPTH + 1, np.int64)
    # `pending` counts all nodes that are still to be drawn.
    depth, length, pending = 1, 0, 1
    while True:
        undrawn[depth - 1] -= 1
        if depth < MAX_DEPTH and rng.random() < OPERATOR_PROBABILITY:
            children = FEWEST_CHILDREN + int(rng.random() * (MOST_CHILDREN - FEWEST_CHILDREN + 1))
            tokens[length] = MIN + int(rng.random() * 4)
            undrawn[depth] = children
            pending += children - 1
            depth += 1
        else:
            tokens[length] = int(rng.random() * 10)
            pending -= 1
        length += 1
        # Each pending node has at least one token, and each open operator still needs its bracket.
        if length + pending + depth - 1 > longest:
            return 0
        # Close every operator whose last child was just drawn.
        while depth > 1 and undrawn[depth - 1] == 0:
            tokens[length] = CLOSE
            length += 1
            depth -= 1
        if depth == 1:
            return length


@njit(nogil=True)
def _apply(operator: int, values: NDArray[np.int64]) -> int:
    """Return the operator's value; sorts `values` in place."""
    # Plain loops, because NumPy's sort and reductions take seconds to compile.
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
    """Return the value 0..9 of an expression, ids (N,) 0..14; `MALFORMED` if it is not whole.

    MED is the median, rounded down; SM is the sum modulo 10.
    """
    values = np.empty(len(tokens), np.int64)  # a stack of the values of open operators
    operators = np.empty(len(tokens), np.int64)  # a stack of open operators
    starts = np.empty(len(tokens), np.int64)  # for each open operator, the index of its first value
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
    """Return the values (B,) of B expressions end to end.

    The i-th one is `tokens[offsets[i]:offsets[i + 1]]`.
    """
    values = np.empty(len(offsets) - 1, np.int64)
    for i in range(len(values)):
        values[i] = evaluate(tokens[offsets[i] : offsets[i + 1]])
    return values


@njit(nogil=True)
def _draw_block(
    rng: np.random.Generator, shortest: int, longest: int, count: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Draw until `count` trees are accepted.

    Returns their tokens end to end, their offsets (count + 1,), and how many trees were drawn.
    """
    tokens = np.empty(count * longest + 1, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    accepted, drawn = 0, 0
    while accepted < count:
        start = offsets[accepted]
        length = _draw(rng, longest, tokens[start:])
        drawn += 1
        if length >= shortest:
            accepted += 1
            offsets[accepted] = start + length
    return tokens[: offsets[count]].copy(), offsets, drawn


def draw_block(seed: int, stream: int, block: int, bounds: Bounds) -> tuple[NDArray[np.uint8], NDArray[np.int64], int]:
    """Return a block of a stream: `BLOCK` expressions end to end, offsets, and trees drawn."""
    sequence = np.random.SeedSequence(seed, spawn_key=(stream, block))
    return _draw_block(np.random.Generator(np.random.PCG64(sequence)), bounds.shortest, bounds.longest, BLOCK)


def _blocks(seed: int, stream: int, bounds: Bounds, workers: int) -> Iterator[list[bytes]]:
    # Threads suffice because the compiled loops release the interpreter's lock. The short queue
    # limits memory.
    with ThreadPoolExecutor(workers) as pool:
        queue: deque[Future[tuple[NDArray[np.uint8], NDArray[np.int64], int]]] = deque()
        for block in itertools.count():
            queue.append(pool.submit(draw_block, seed, stream, block, bounds))
            if len(queue) > 2 * workers:
                tokens, offsets, _ = queue.popleft().result()
                yield [tokens[start:stop].tobytes() for start, stop in itertools.pairwise(offsets)]


def expressions(seed: int, stream: int, bounds: Bounds, workers: int, seen: set[bytes]) -> Generator[bytes, None, None]:
    """Yield distinct expressions without end, the ids as bytes.

    `seen` holds the digests of expressions that must not be drawn again; new ones are added to it.
    """
    for block in _blocks(seed, stream, bounds, workers):
        for tokens in block:
            digest = hashlib.blake2b(tokens, digest_size=16).digest()
            if digest not in seen:
                seen.add(digest)
                yield tokens
