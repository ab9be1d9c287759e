"""The console of all tables and remarks: it prints the user's words as they are.

This module does not import torch, and imports rich on the first call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """Return a console without markup, emoji codes, colours of numbers and line breaks.

    Labels and paths may hold brackets, which rich would read as its markup.
    """
    from rich.console import Console

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)
