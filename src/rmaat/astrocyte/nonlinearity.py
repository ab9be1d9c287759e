"""The scalar functions that a macro model may use, with the properties that its bounds need."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmaat.registry import Registry

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Nonlinearity:
    """An elementwise function f: non-decreasing, and f(0) = 0, so that rest is an equilibrium."""

    function: Callable[[Array], Array]
    """Function from an array to an array of the same shape; no units."""
    gain: float
    """The largest f(z) / z over z > 0, which is the slope at 0 from the right."""
    bounded: bool
    """True if f has an upper bound."""

    def __call__(self, z: Array) -> Array:
        """Return f of every element, in the shape of z."""
        return self.function(z)


def _identity(z: Array) -> Array:
    return z


def _relu(z: Array) -> Array:
    return np.maximum(z, 0.0)


def _rectified_tanh(z: Array) -> Array:
    return np.maximum(np.tanh(z), 0.0)


def _rectified_hyperbola(z: Array) -> Array:
    positive = np.maximum(z, 0.0)
    return positive / (1.0 + positive)


NONLINEARITIES: Registry[Nonlinearity] = Registry(
    "nonlinearity",
    {
        "tanh": Nonlinearity(np.tanh, gain=1.0, bounded=True),
        "rectified_tanh": Nonlinearity(_rectified_tanh, gain=1.0, bounded=True),
        "rectified_hyperbola": Nonlinearity(_rectified_hyperbola, gain=1.0, bounded=True),
        "relu": Nonlinearity(_relu, gain=1.0, bounded=False),
        "linear": Nonlinearity(_identity, gain=1.0, bounded=False),
    },
)
"""All functions, by name [C].

- tanh: tanh(z).
- rectified_tanh: max(tanh(z), 0).
- rectified_hyperbola: z / (1 + z) for z > 0, else 0; the saturation of a binding site.
- relu: max(z, 0).
- linear: z.
"""
