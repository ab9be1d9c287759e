"""Calls in a process of their own, so that no measurement sees what another one left behind."""

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol


class KilledError(RuntimeError):
    """The process was ended from outside before it had an answer; mostly for want of memory."""


class Call(Protocol):
    """How the functions of a comparison are called: in fresh processes, or in this one."""

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result."""


def in_this_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result.

    For CUDA: its allocator counts each measurement by itself, and a new process takes 10 s.
    """
    return function(*arguments)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's result from a newly started interpreter, which is ended with this call.

    Raises:
        KilledError: where the process ended without a whole answer.
        Exception: what the function raised; as `RuntimeError` with its name and text where that or the result cannot be sent.
    """
    context = multiprocessing.get_context("spawn")
    answers, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    try:
        process.start()
        sender.close()
        result, failure = pickle.loads(answers.recv_bytes())
        process.join()
    except (EOFError, OSError):
        process.join()
        if (process.exitcode or 0) > 0:
            raise KilledError(f"its process ended with status {process.exitcode} and no answer") from None
        raise KilledError("its process was killed, most likely for want of memory") from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
    if failure is not None:
        raise failure
    return result


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        answer = pickle.dumps((function(*arguments), None))
    except Exception as failure:
        failure.add_note(traceback.format_exc())
        answer = pickle.dumps((None, _sendable(failure)))
    sender.send_bytes(answer)


def _sendable(failure: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(failure))
    except Exception:
        return RuntimeError(f"{type(failure).__name__}: {failure}")
    return failure
