"""Calls in a process of their own, so that no measurement sees what another one left behind."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol


class KilledError(RuntimeError):
    """The process was ended from outside before it had an answer; mostly for want of memory."""


class Call(Protocol):
    """How the functions of a comparison are called: in fresh processes, or in this one."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result."""


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result from a newly started interpreter; its exceptions are raised here.

    Raises:
        KilledError: where the process ended without an answer.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise KilledError("its process was killed, most likely for want of memory") from None
