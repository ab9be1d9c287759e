"""Bring `results/` into the site: its README as the page of results, and the files that pages link."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PAGE = "results.md"
FOLDER = "results"
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of results and every file of results/ that a page links."""
    root = Path(config.config_file_path).parent
    text = (root / FOLDER / "README.md").read_text(encoding="utf-8")
    text = LINK.sub(lambda match: _from_results(match, root), text)
    files.append(File.generated(config, PAGE, content=text))
    linked = set()
    for file in list(files.documentation_pages()):
        folder = Path(file.src_uri).parent
        for match in LINK.finditer(file.content_string):
            target = (root / config.docs_dir / folder / match["target"]).resolve()
            inside = root / FOLDER
            if file.src_uri == PAGE:
                target = root / match["target"]
            if target.is_file() and target.is_relative_to(inside) and target.name != "README.md":
                linked.add(target.relative_to(root).as_posix())
    for path in sorted(linked):
        files.append(File.generated(config, path, abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Rewrite links to results/, which the repository has beside docs/ and the site has inside."""
    depth = page.file.src_uri.count("/")
    outside, inside = "../" * (depth + 1) + f"{FOLDER}/", "../" * depth
    markdown = markdown.replace(f"]({outside}README.md", f"]({inside}{PAGE}")
    return markdown.replace(f"]({outside}", f"]({inside}{FOLDER}/")


def _from_results(match: re.Match[str], root: Path) -> str:
    """Rewrite a link of results/README.md to one that holds on the page of results."""
    target, anchor = match["target"], match["anchor"] or ""
    if target.startswith("http"):
        return match[0]
    path = (root / FOLDER / target).resolve().relative_to(root).as_posix()
    return f"]({path.removeprefix('docs/')}{anchor})"
