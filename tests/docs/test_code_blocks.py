"""Every code block of README.md and docs/ runs, small.

Python blocks run as they stand, page by page, in one namespace and an empty folder. A text block
directly below is the expected output. Lines of shell blocks that call `rmaat` run in this process,
with the flags of `SMALL` at their end, or are parsed and checked if `CHECKED_ONLY` gives a reason.
"""

import contextlib
import importlib
import io
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from rmaat.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))

LANGUAGES = {"python", "shell", "text", "toml", "yaml"}

NARROW = "--hidden_size 16 --num_hidden_layers 1 --num_attention_heads 2 --intermediate_size 16"
COUNTS = "--num_train 64 --num_val 64 --num_test 16"

STEPS = "--max_steps 2 --eval_steps 2 --warmup_steps 0 --per_device_train_batch_size 4"

SMALL = {
    "train": f"{STEPS} --test_examples 8 --torch_compile false --bf16 false {NARROW}",
    "pretrain": f"{STEPS} --torch_compile false --bf16 false {NARROW}",
    "data": COUNTS,
    "simulate": "--cycles 2 --samples_per_cycle 10",
}
"""Flags added to a command, by its verbs; the last of two equal flags counts."""

CHECKED_ONLY = {
    "--download": "fetches an archive of others",
    "imdb": "needs data of others",
    "cifar10": "needs data of others",
    "pathfinder32": "its generator is compiled first, which takes longer than all other blocks",
    "--ray_address": "needs a Ray cluster",
    "serve": "answers until Ctrl-C; tests/serve runs it",
    "compare accuracy": "trains in processes of its own; tests/grid/test_run.py runs it",
    "compare table": "reads what compare accuracy leaves; tests/grid/test_run.py runs it",
    "compare memory": "measures in processes of its own; tests/cli/test_compare.py runs it",
    "compare speed": "measures in processes of its own; tests/cli/test_compare.py runs it",
    "search --recipe": "trains in processes of its own; tests/grid/test_search.py runs it",
    "compare context": "needs a language model of others; tests/bench/test_context.py runs it",
    "compare recall": "trains in processes of its own; tests/grid/test_recall.py runs it",
}
"""Commands that are parsed and checked, by a part of theirs, and the reason."""

EXAMPLES = [f'{{"text": "{word} {number}", "label": "{word}"}}' for word in ("rain", "bread") for number in range(30)]

FILES = {
    "README.md": {
        "train.jsonl": "\n".join(EXAMPLES),
        "test.jsonl": '{"text": "more bread", "label": "bread"}',
        "letter.txt": "Wind and rain all day.",
    },
    "docs/how-to/language.md": {"notes/notes.txt": "Notes of many days. " * 200},
    "docs/how-to/pretrain.md": {"notes/notes.txt": "Notes of many days. " * 200},
    "docs/how-to/search.md": {"runs/search/rmt.yaml": "recipe: listops\nmodel: rmt\n"},
}
"""Files that a page's commands name and do not make here: the reader's own, a search's."""


@dataclass(frozen=True)
class Block:
    """A fenced block; `adjacent` tells whether only blank lines are between it and the block above."""

    page: str
    line: int
    language: str
    text: str
    adjacent: bool

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


FENCE = re.compile(r"^ {0,3}```(?P<language>.*)$")


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page. Fails for an indented one, which has no language."""
    result: list[Block] = []
    language: str | None = None
    start, lines, prose = 0, list[str](), True
    listed = False
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if language is None and fence:
            language, start, lines = fence["language"].strip(), number, []
        elif language is not None and fence:
            result.append(Block(page, start, language, "\n".join(lines), adjacent=not prose))
            language, prose = None, False
        elif language is not None:
            lines.append(line)
        elif line.strip():
            listed = line.startswith(("-", "*", ":::", "  ")) and (listed or not line.startswith(" "))
            assert listed or not line.startswith("    "), f"{page}:{number}: fence this block"
            prose = True
    assert language is None, f"{page}:{start}: this block does not end"
    return result


def commands(block: Block) -> Iterator[str]:
    """Yield the command lines of a shell block."""
    for line in block.text.replace("\\\n", " ").splitlines():
        if shlex.split(line, comments=True):
            yield line


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of all pages: generated once, small."""
    folder = tmp_path_factory.mktemp("data")
    for task in ("listops", "listops_short", "recall", "remember"):
        run(["data", task, "--data_dir", str(folder), *COUNTS.split()], task)
    return folder


def save_dot(figure: Figure, file: IO[bytes], **options: object) -> None:
    """Write a picture of one pixel, in place of `Figure.savefig`."""
    Image.new("RGB", (1, 1)).save(file, "PNG")


@dataclass(frozen=True)
class Workshop:
    """What the commands of a page need.

    Attributes:
        folder: the working folder, empty but for a data folder.
        patch: undone after the page.
    """

    folder: Path
    patch: pytest.MonkeyPatch


@pytest.fixture
def workshop(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RMAAT_DATA", raising=False)
    # Drawing would take longer than all other work.
    monkeypatch.setattr(Figure, "savefig", save_dot)
    (tmp_path / "datasets").symlink_to(data_dir)
    return Workshop(tmp_path, monkeypatch)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_run(page: str, workshop: Workshop) -> None:
    for name, text in FILES.get(page, {}).items():
        path = workshop.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "docs"}
    settings, output = "", ""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: '{block.language}' is none of {sorted(LANGUAGES)}"
        if block.language == "python":
            output = run_python(block, namespace)
        elif block.language == "text" and block.adjacent:
            assert output.split() == block.text.split(), f"{block.place}: the block above prints\n{output}"
        elif block.language == "toml":
            tomllib.loads(block.text)
        elif block.language == "yaml":
            settings = block.text
        elif block.language == "shell":
            for line in commands(block):
                run_shell(line, block.place, settings, workshop)


def run_python(block: Block, namespace: dict[str, Any]) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(block.text, block.place, "exec"), namespace)
    return printed.getvalue()


def run_shell(line: str, place: str, settings: str, workshop: Workshop) -> None:
    """Run or check one line."""
    words = shlex.split(line, comments=True)
    if "|" in words:
        bar = words.index("|")
        assert words[0] == "echo", f"{place}: only echo may stand before a bar"
        workshop.patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(" ".join(words[1:bar]).encode())))
        words = words[bar + 1 :]
    while "=" in words[0]:
        words = words[1:]
    if words[0] == "timeout":
        words = words[words.index("rmaat") :]
    program, *rest = words
    where = f"{place}: {line.strip()}"
    if program == "rmaat":
        run_rmaat(rest, where, settings, workshop)
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        parsed = get_args_parser().parse_args(rest)
        assert (parsed.module, parsed.training_script) == (True, "rmaat"), where
        check(parsed.training_script_args, where, workshop)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(rest) <= set(targets), f"{where}: the Makefile has {targets}"
    elif program.endswith("pip"):
        assert rest[0] == "install", where
        check_requirement(rest[1], where)
    elif program in ("python", "python3"):
        check_script(rest, where)
    else:
        script = ROOT / program
        assert script.is_file(), f"{where}: no such program"
        assert all(word in script.read_text() for word in rest), where


def run_rmaat(words: Sequence[str], where: str, settings: str, workshop: Workshop) -> None:
    """Run a command with its verb's flags of `SMALL`, or check it."""
    if "--config" in words and settings:
        # The page shows the file above.
        Path(words[words.index("--config") + 1]).write_text(settings, encoding="utf-8")
    if any(part in " ".join(words) for part in CHECKED_ONLY):
        check(words, where, workshop)
        return
    verbs = next((verbs for verbs in (" ".join(words[:2]), words[0]) if verbs in SMALL), "")
    small = shlex.split(SMALL.get(verbs, ""))
    if verbs == "data" and words[1] == "files":
        small = []
    if verbs in ("train", "pretrain") and "--resume" not in words:
        small.append("--overwrite")
    words = [re.sub(r"^(\w+=[^:]+:[^:]+):\d+$", r"\1:2", word) for word in words]
    run([*words, *small], where)


def run(words: Sequence[str], where: str) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = main(list(words))
    assert status == 0, f"{where}\n{printed.getvalue()}"


def check(words: Sequence[str], where: str, workshop: Workshop) -> None:
    """Check a command without its work: names, flags and values."""
    if words[0] == "train":
        run([*words, "--print_config"], where)
        return
    with workshop.patch.context() as patch:
        patch.setattr(verb_module(words), "run", check_names)
        run(words, where)


def verb_module(words: Sequence[str]) -> ModuleType:
    assert words[0] in VERBS, words[0]
    module = importlib.import_module(f"rmaat.cli.{words[0]}")
    return importlib.import_module(f"{module.__name__}.{words[1]}") if hasattr(module, "VERBS") else module


def check_names(arguments: Any) -> None:
    """Check that the models, methods, tasks and presets of a command exist."""
    from rmaat.bench.methods import METHODS
    from rmaat.grid.cells import parse_variant
    from rmaat.grid.presets import GRIDS, MODEL_GROUPS
    from rmaat.tasks import task_of

    if "caches" in arguments:
        from rmaat.cli.compare.context import check as check_context

        check_context(arguments)
        return
    for model in set(arguments.get("models") or ()) - set(MODEL_GROUPS):
        parse_variant(model)
    for method in arguments.get("methods") or ():
        METHODS[method]
    for task in (*(arguments.get("tasks") or ()), arguments.get("task")):
        if task is not None:
            task_of(task)
    if "preset" in arguments:
        GRIDS[arguments["preset"]]


def check_requirement(requirement: str, where: str) -> None:
    """Check a requirement of pip: this project with extras that it has, or a package that it needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name, _, extras = requirement.removesuffix("]").partition("[")
    needed = {re.split(r"[<>=\[]", dependency)[0] for dependency in project["dependencies"]}
    assert name in {".", *needed}, where
    assert not extras or set(extras.split(",")) <= set(project["optional-dependencies"]), where


def check_script(words: Sequence[str], where: str) -> None:
    """Check that a script of this repository is there and has the flags."""
    if words[0] == "-m":
        importlib.import_module(words[1])
        return
    script = ROOT / words[0]
    assert script.is_file(), f"{where}: no such script"
    for flag in words[1:]:
        assert not flag.startswith("--") or f'"{flag}"' in script.read_text(), f"{where}: no {flag}"


INLINE = re.compile(r"`([^`\n]+)`")
FLAG = re.compile(r"--[a-z][\w.]*")
IN_REPOSITORY = re.compile(r"^(?:src|docs|examples|benchmarks|tests|results)/[\w./]*$")

OF_OTHERS = {"--help", "--key", "--nproc_per_node"}
"""Flags of every command, of any name, and of other programs."""


@pytest.mark.parametrize("page", PAGES)
def test_flags_and_paths_in_the_text_exist(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    known = known_flags()
    for code in INLINE.findall(text):
        flags = () if code.startswith("python ") else FLAG.findall(code)
        unknown = [flag for flag in flags if flag.split(".")[0] not in known]
        assert not unknown, f"{page}: `{code}`: no {', '.join(unknown)}"
        for word in code.split():
            if IN_REPOSITORY.match(word) and "NAME" not in word:
                assert (ROOT / word).exists(), f"{page}: no {word}"


def known_flags() -> set[str]:
    """Return the flags of all verbs."""
    from rmaat.cli.parser import Parser

    flags = set(OF_OTHERS)
    for verb in VERBS:
        module = importlib.import_module(f"rmaat.cli.{verb}")
        modules = [verb_module([verb, inner]) for inner in getattr(module, "VERBS", ())] or [module]
        for inner in modules:
            parser = Parser(prog=verb, print_config=None)
            inner.add_arguments(parser)
            flags |= {option for action in parser._actions for option in action.option_strings}
    return flags


LINK = re.compile(r"\]\((?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]+))?\)")


def test_links_of_the_readme_lead_somewhere() -> None:
    for match in LINK.finditer((ROOT / "README.md").read_text(encoding="utf-8")):
        target, anchor = match["target"], match["anchor"]
        if target.startswith("http"):
            continue
        path = ROOT / (target or "README.md")
        assert path.exists(), f"README.md links {target}"
        if anchor:
            assert anchor in anchors(path), f"README.md links #{anchor}, which {target} lacks"


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


PAGE = re.compile(r"docs/[\w/-]+\.md")
FOLDERS = ("src", "examples", "benchmarks", "tests")


def test_pages_that_the_source_names_exist() -> None:
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        for page in PAGE.findall(path.read_text(encoding="utf-8")):
            assert (ROOT / page).is_file(), f"{path.relative_to(ROOT)} names {page}"
