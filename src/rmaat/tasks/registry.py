"""The registered tasks. A new task is one line here; everything else finds it by its name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rmaat.errors import UserError
from rmaat.recipes import recipe_layers, recipe_names
from rmaat.registry import Registry
from rmaat.tasks.base import Task
from rmaat.values import check_values

if TYPE_CHECKING:
    from rmaat.tasks.options import FilesOptions, MemoryOptions

TASKS: Registry[Task] = Registry(
    "task",
    {
        "listops": "rmaat.tasks.listops:LISTOPS",
        "listops_short": "rmaat.tasks.listops:LISTOPS_SHORT",
        "imdb": "rmaat.tasks.imdb:IMDB",
        "imdb_long": "rmaat.tasks.imdb:IMDB_LONG",
        "imdb_lra": "rmaat.tasks.imdb:IMDB_LRA",
        "cifar10": "rmaat.tasks.images:CIFAR10",
        "mnist": "rmaat.tasks.images:MNIST",
        "fashion_mnist": "rmaat.tasks.images:FASHION_MNIST",
        "pathfinder32": "rmaat.tasks.pathfinder.task:PATHFINDER32",
        "pathfinder32_intermediate": "rmaat.tasks.pathfinder.task:PATHFINDER32_INTERMEDIATE",
        "pathfinder32_easy": "rmaat.tasks.pathfinder.task:PATHFINDER32_EASY",
        "aan": "rmaat.tasks.aan:AAN",
        "aan_lite": "rmaat.tasks.aan:AAN_LITE",
        "recall": "rmaat.tasks.recall:RECALL",
        "remember": "rmaat.tasks.retrieval:REMEMBER",
        "rewrite": "rmaat.tasks.retrieval:REWRITE",
        "stories": "rmaat.tasks.stories:STORIES",
        "mqar": "rmaat.tasks.answers:MQAR",
        "copy": "rmaat.tasks.answers:COPY",
        "selective_copy": "rmaat.tasks.answers:SELECTIVE_COPY",
        "files": "rmaat.tasks.files:FILES",
        "texts": "rmaat.tasks.texts:TEXTS",
    },
)
"""Tasks by name, each given as the place to import it from when it is first asked for."""


def task_of(name: str, options: FilesOptions | MemoryOptions | None = None) -> Task:
    """Return the task of that name with the options that are not None.

    Raises:
        UserError: if the name is unknown, the task lacks one of the options, or a value is not
            allowed.
    """
    if options is not None:
        check_values(options, type(options))
    if name not in TASKS and name in recipe_names():
        raise UserError(_recipe_advice(name))
    task = TASKS[name]
    values = {key: value for key, value in asdict(options).items() if value is not None} if options else {}
    if foreign := sorted(values.keys() - set(task.option_names)):
        settings = f"its settings are {', '.join(task.option_names)}" if task.option_names else "it has none"
        raise UserError(f"{', '.join(foreign)}: no setting of the task {name}; {settings}")
    return task.with_options(values)


def _recipe_advice(name: str) -> str:
    """Return that a name is that of a recipe, and the words that name its task."""
    settings: dict[str, Any] = {}
    for layer in recipe_layers(name):
        settings |= layer
    task, problem = settings["dataset"], settings.get("problem_type")
    words = task if problem is None else f"{task} --problem_type {problem}"
    return f"'{name}' is a recipe of the task {task}, for `rmaat train --recipe {name}`; the task is: {words}"
