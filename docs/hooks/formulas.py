"""Convert the formulas of a page to MathML, which browsers draw without a script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
"""A formula as pymdownx.arithmatex leaves it, `\\(...\\)` or `\\[...\\]` in one element."""

DELIMITER = 2
"""Characters of a delimiter such as `\\(`."""


def on_page_content(content: str, **_: Any) -> str:
    """Replace each formula of a page's HTML."""
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    latex = html.unescape(match[2]).strip()[DELIMITER:-DELIMITER].strip()
    # latex2mathml knows this environment by its other name, and no \_ in text.
    latex = latex.replace("{aligned}", "{align*}")
    formula = convert(latex, display="block" if match[1] == "div" else "inline").replace("\\_", "_")
    if "\\" in formula:
        raise ValueError(f"latex2mathml does not know a command of this formula: {latex}")
    return formula
