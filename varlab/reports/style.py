"""The look and the scripts of the pages, from the files in ``site``: each page carries all that it needs itself.

One column of text, figures wider than the text, colours that follow the reader's light or dark setting. What is wider
than the window, a table or a long formula, scrolls within its own box and says so. A page opened from a folder may not
load other files, and one that is mailed has none: so styles and scripts stand in the page, and its content security
policy allows that very script and nothing from the network.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

SCRIPTS = {"index": ("index.js",), "viewer": ("pair.js", "viewer.js")}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data: file:; form-action 'none'"


@cache
def site_file(name: str) -> str:
    """The text of a style, script or template."""
    return (Path(__file__).with_name("site") / name).read_text("utf-8")


def page_style() -> str:
    """The style of a report's page."""
    return site_file("base.css") + site_file("page.css") + code_colours()


def render(name: str, values: dict[str, Any]) -> str:
    """The page ``site/<name>.html`` with its style and its scripts; values are escaped unless they are Markup."""
    from jinja2 import Environment
    from markupsafe import Markup

    script = "\n".join(map(site_file, SCRIPTS[name]))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    own: dict[str, Any] = {
        "policy": f"{POLICY}; script-src 'sha256-{digest}'",
        "style": Markup(site_file("base.css") + site_file(f"{name}.css")),
        "script": Markup(script),
    }
    return Environment(autoescape=True, trim_blocks=True).from_string(site_file(f"{name}.html")).render(own | values)


def code_colours() -> str:
    """Pygments' colours for code, light and dark, without backgrounds."""
    from pygments.formatters import HtmlFormatter

    def rules(style: str) -> str:
        lines = HtmlFormatter(style=style, nobackground=True).get_style_defs(".highlight").splitlines()
        return "\n".join(line for line in lines if line.startswith(".highlight ."))

    return f"{rules('friendly')}\n@media (prefers-color-scheme: dark) {{\n{rules('github-dark')}\n}}\n"
