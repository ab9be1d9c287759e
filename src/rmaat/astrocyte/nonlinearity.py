"""The scalar functions a macro model may use, with what its bounds need to know of each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rmaat.registry import Registry

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Nonlinearity:
    """An elementwise function f, non-decreasing and with f(0) = 0, so that nothing grows without drive."""

    function: Callable[[Array], Array]
    """Maps an array to an array of the same shape."""
    gain: float
    """The largest f(z) / z over z > 0; for these functions it is the slope at 0 from the right."""
    bounded: bool
    """Whether f stays below some number for all z."""

    def __call__(self, z: Array) -> Array:
        """The function of every element."""
        return self.function(z)


def _identity(z: Array) -> Array:
    return z


def _relu(z: Array) -> Array:
    return np.maximum(z, 0.0)


def _rectified_tanh(z: Array) -> Array:
    return np.maximum(np.tanh(z), 0.0)


def _rectified_hyperbola(z: Array) -> Array:
    above = np.maximum(z, 0.0)
    return above / (1.0 + above)


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
"""tanh; max(tanh, 0); z / (1 + z) for z > 0, the saturation of a binding site; max(z, 0); z."""
