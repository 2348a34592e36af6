"""Formulas as inline SVG, drawn by matplotlib's mathtext: no script, no font, nothing to load.

What mathtext cannot set (it knows a large part of LaTeX's maths, no macros) is shown as its source.
"""

import re
from functools import lru_cache
from html import escape

SIZE = 40.0  # the drawing's font size (mathtext rounds its boxes to whole units); the page scales it with em
ROWS = re.compile(r"\\\\(?:\[[^\]]*\])?")
ENVIRONMENT = re.compile(r"\s*\\begin\{([a-z]+)\*?\}(.*)\\end\{\1\*?\}\s*", re.DOTALL)
SYNONYMS = {r"\lVert": r"\|", r"\rVert": r"\|", r"\lvert": "|", r"\rvert": "|", r"\tfrac": r"\frac"}
ALIGNED = {"align", "aligned", "gather", "gathered", "split", "equation", "multline", "eqnarray"}


def inline_formula(tex: str) -> str:
    """A formula within a line."""
    return (_drawn(tex) or _source(tex)) + "&#8288;"  # a full stop stays on its line


def block_formula(tex: str) -> str:
    """A displayed formula; the rows of an aligned environment stand under each other."""
    match = ENVIRONMENT.fullmatch(tex)
    if match and match[1] in ALIGNED:
        tex = match[2]
        nested = ENVIRONMENT.fullmatch(tex)
        tex = nested[2] if nested and nested[1] in ALIGNED else tex
        rows = [row.replace("&", " ") for row in ROWS.split(tex) if row.strip()]
    else:
        rows = [tex]
    drawn = [_drawn(row) for row in rows]
    body = "".join(f"<div>{row}</div>" for row in drawn) if all(drawn) else _source(tex)
    return f'<div class="formula">{body}</div>\n'


def _source(tex: str) -> str:
    return f'<code class="tex">{escape(tex.strip())}</code>'


@lru_cache(1024)  # pages share their formulas
def _drawn(tex: str) -> str:
    """The formula as SVG in the colour of the text; empty where mathtext cannot set it."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser
    from matplotlib.textpath import TextPath

    text = f"${' '.join(tex.split())}$"
    for latex, mathtext in SYNONYMS.items():
        text = text.replace(latex, mathtext)
    font = FontProperties(size=SIZE, math_fontfamily="stix")
    try:
        width, height, depth = MathTextParser("path").parse(text, dpi=72, prop=font)[:3]
        path = TextPath((0, 0), text, prop=font)
    except ValueError:
        return ""
    letters = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    strokes = []
    for points, code in path.iter_segments(simplify=False):
        pairs = [f"{x:.1f} {-y:.1f}" for x, y in points.reshape(-1, 2)] if code != 79 else []
        strokes.append(letters[int(code)] + " ".join(pairs))
    box = f"0 {depth - height - 1:.0f} {width:.0f} {height + 2:.0f}"  # one unit of air above and below
    ems = [f"{length / SIZE:.3f}em" for length in (width, height + 2, -depth - 1)]
    style = "width:{};height:{};vertical-align:{}".format(*ems)
    return (
        f'<svg class="math" role="img" aria-label="{escape(tex.strip())}" viewBox="{box}" style="{style}">'
        f'<path fill="currentColor" d="{"".join(strokes)}"/></svg>'
    )
