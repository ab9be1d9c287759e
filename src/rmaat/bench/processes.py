"""Calls in fresh processes, so that no measurement depends on the ones before."""

import multiprocessing
import pickle
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

Call = Callable[..., Any]
"""(function, *arguments) -> the function's result: one of the two functions below."""


class OutOfMemoryError(RuntimeError):
    """A step wanted more memory than there was, or its process was killed, mostly for that."""


def in_this_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result.

    For CUDA: its allocator counts each measurement by itself, and a new process takes 10 s.
    """
    return function(*arguments)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the function's result from a new interpreter, which ends with this call.

    Raises:
        OutOfMemoryError: if the process ended without a whole answer.
        Exception: what the function raised; a `RuntimeError` with its name and text if that, or the
            result, cannot be pickled.
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
        message = "its process was killed, most likely for want of memory"
        if (process.exitcode or 0) > 0:
            message = f"its process ended with status {process.exitcode} and no answer"
        raise OutOfMemoryError(message) from None
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
        try:
            answer = pickle.dumps((None, failure))
            pickle.loads(answer)
        except Exception:
            substitute = RuntimeError(f"{type(failure).__name__}: {failure}")
            answer = pickle.dumps((None, substitute))
    sender.send_bytes(answer)
