"""Token mixers: how information moves between the positions of one segment. One file a mixer.

Each file has, in this order, the formula as a plain reference, the fast form as a pure function,
and the module that a layer holds. `registry.py` has one entry a mixer, with the settings it owns.
This package imports no torch until a mixer is built.
"""

from rmaat.attention.registry import ATTENTION, Attention

__all__ = ["ATTENTION", "Attention"]
