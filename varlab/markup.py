"""Texts that users give (prompts, specs, names, paths) within Markdown, so that they read as typed."""

import re

SIGNS = re.compile(r"[\\`*_\[\]<>&|~]")


def as_markdown(text: object) -> str:
    """The text with the signs of Markdown and HTML as character references, a line break as ``<br>``.

    A ``$`` stands in an element of its own: MathJax, which draws the formulas of notebooks, looks for none
    across elements.
    """
    plain = SIGNS.sub(lambda sign: f"&#{ord(sign[0])};", str(text))
    return re.sub(r"\r\n?|\n", "<br>", plain.replace("$", "<span>&#36;</span>"))
