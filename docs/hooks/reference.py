"""Write the reference pages of settings and of the command line from the code itself."""

import importlib
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from rmaat.astrocyte import MacroModel
from rmaat.cli import main
from rmaat.cli.parser import Parser
from rmaat.presets import yaml_word
from rmaat.settings import ModelSettings
from rmaat.tasks.options import TaskOptions
from rmaat.training.config import RunConfig

SETTINGS = "reference/settings.md"
COMMAND_LINE = "reference/command_line.md"

SECTIONS = (
    (
        "A run",
        RunConfig,
        "Flags of `rmaat train` and keys of its YAML files. The settings of the model and of the "
        "task, below, are flags and keys too.",
    ),
    ("The model", ModelSettings, "Arguments of `rmaat.RmaatConfig` as well."),
    ("The task", TaskOptions, "Flags of `rmaat data` and `rmaat train`. `null` is the task's default."),
    (
        "The astrocyte",
        MacroModel,
        "Arguments of `rmaat.astrocyte.MacroModel`, flags of `rmaat simulate`, and keys of the "
        "setting `macro_model`. The equations are in [the astrocyte](../explanation/astrocyte.md).",
    ),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, page in ((SETTINGS, settings_page()), (COMMAND_LINE, command_line_page())):
        files.append(File.generated(config, path, content=page))
    return files


def settings_page() -> str:
    """Return every setting with its type, default and description."""
    lines = [
        "# Settings",
        "",
        "Sources: [P] the RMAAT paper (arXiv 2601.00426); [A] its astromorphic predecessor (arXiv "
        "2312.10925); [K] Kozachkov et al. (arXiv 2311.08135); [C] this project's choice.",
    ]
    for title, cls, introduction in SECTIONS:
        lines += ["", f"## {title}", "", introduction, ""]
        lines += ["| setting | type | default | meaning |", "|---|---|---|---|"]
        # Inherited settings have a section of their own.
        others = {
            field.name
            for _, other, _ in SECTIONS
            if issubclass(cls, other) and other is not cls
            for field in fields(other)
        }
        meanings, kinds = _meanings(cls), get_type_hints(cls)
        lines += [
            _row(field, kinds[field.name], meanings[field.name]) for field in fields(cls) if field.name not in others
        ]
    return "\n".join(lines) + "\n"


def command_line_page() -> str:
    """Return the help of the command line and of each verb."""
    lines = ["# Command line", ""]
    lines += ["A switch needs no value: `--resume` means `--resume true`.", ""]
    lines += ["| exit status | meaning |", "|---|---|"]
    statuses = {0: "success", main.FAILURE: "a training diverged, cells of a grid failed, or an internal error"}
    statuses |= {main.USER_MISTAKE: "a mistake in the command, its files or its settings"}
    statuses |= {main.INTERRUPTED: "Ctrl-C"}
    lines += [f"| {status} | {meaning} |" for status, meaning in statuses.items()]
    lines += [
        "",
        f"An error is one line. With the environment variable `{main.TRACEBACK}=1` its traceback precedes it.",
    ]
    for prog, module in _verbs("rmaat", "rmaat.cli", main.VERBS):
        parser = Parser(prog=prog, description=module.__doc__, print_config=None)
        module.add_arguments(parser)
        lines += ["", f"## {prog}", "", "```text", parser.format_help().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _verbs(prog: str, package: str, verbs: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield each verb's name and module; a verb of verbs has a table of its own."""
    for verb in verbs:
        module = importlib.import_module(f"{package}.{verb}")
        if hasattr(module, "VERBS"):
            yield from _verbs(f"{prog} {verb}", module.__name__, module.VERBS)
        else:
            yield f"{prog} {verb}", module


def _meanings(cls: type) -> dict[str, str]:
    """Return the description of each field, from the docstrings of the class and its bases."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        for parameter in parse_from_object(base).params:
            meanings[parameter.arg_name] = " ".join((parameter.description or "").split())
    return meanings


def _row(field: Field[Any], kind: Any, meaning: str) -> str:
    default = field.default if field.default is not MISSING else None
    cells = (f"`{field.name}`", f"`{_kind(kind)}`", f"`{yaml_word(default)}`", meaning)
    # A bar would end the cell; the table extension reads \| as a bar.
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _kind(annotation: Any) -> str:
    """Return a type as a reader of YAML knows it, such as `int | null` or `bool | 'auto'`."""
    if get_origin(annotation) is Literal:
        return " | ".join(map(repr, get_args(annotation)))
    if get_origin(annotation) in (Union, UnionType):
        return " | ".join(map(_kind, get_args(annotation)))
    if annotation is NoneType:
        return "null"
    return str(annotation).replace("typing.", "") if get_origin(annotation) else annotation.__name__
