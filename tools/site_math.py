"""A hook of the site's builder: equations become MathML, which browsers draw without any script."""

import html
import re

from latex2mathml.converter import convert

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: object) -> str:
    """Replace what `pymdownx.arithmatex` marked."""
    def equation(match: re.Match) -> str:
        tag, display = match[1], "block" if match[2] == "[" else "inline"
        return f'<{tag} class="equation">{convert(html.unescape(match[3]).strip(), display=display)}</{tag}>'
    return EQUATION.sub(equation, content)
