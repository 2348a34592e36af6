"""An executed notebook without the machine it ran on: no absolute paths, no timing noise."""

import re
import sys
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from varlab.reports.notebooks import tags
from varlab.resources import PACKAGE, checkout

if TYPE_CHECKING:
    from nbformat import NotebookNode

CELL_FILE = re.compile(r"/[\w./-]*ipykernel_\d+/\d+\.py")  # where IPython says that a cell lives
WAITED = re.compile(r"^varlab: .*; waiting for it\n", re.MULTILINE)
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def path_cleaner(out: Path, draft: Path | None = None) -> Callable[[Any], Any]:
    """A function that shortens machine paths in any nest of text: those of the reports, the repository, the
    working directory, Python's libraries and the home folder become relative, `<python>/...` or `~/...`.
    A draft's folder reads as the one that its files move to.
    """
    rules = [(_pattern(root), _shortened(short)) for root, short in _roots(out)]
    if draft is not None:
        own = f"{draft.parent.name}/{draft.name}"
        rules.insert(0, (_pattern(own), _shortened(f"{draft.parent.name}/")))

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            value = CELL_FILE.sub("<cell>", value)
            for pattern, short in rules:
                value = pattern.sub(short, value)
            return value
        if isinstance(value, list | tuple):
            return [clean(item) for item in value]
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        return value

    return clean


def tidy_notebook(notebook: "NotebookNode", name: str, clean: Callable[[Any], Any]) -> None:
    """Strip, in place, what papermill and the kernel left about the machine and the clock."""
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in tags(cell):
            cell.source = clean(cell.source)
        for output in cell.get("outputs", []):
            _clean_output(output, clean)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""]
    papermill = notebook.metadata.get("papermill", {})
    notebook.metadata["papermill"] = {
        "input_path": f"{name}.ipynb",
        "output_path": f"{name}.ipynb",
        "parameters": clean(papermill.get("parameters", {})),
        "version": papermill.get("version", ""),
    }
    notebook.metadata["kernelspec"] = dict(KERNEL)


def _clean_output(output: "NotebookNode", clean: Callable[[Any], Any]) -> None:
    from nbformat import from_dict

    if output.get("name") == "stderr":  # that a run folder was another process's for a while is no result
        output["text"] = WAITED.sub("", output["text"])
    for key in ("text", "evalue", "traceback"):
        if key in output:
            output[key] = clean(output[key])
    for mime, value in output.get("data", {}).items():
        if mime == "image/svg+xml" or not mime.startswith("image/"):  # base64 is left alone
            output["data"][mime] = from_dict(clean(value))


def _roots(out: Path) -> list[tuple[str, str]]:
    """Folders of this machine and what stands for each, the deepest first."""
    libraries = [sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")]
    short: dict[str, str] = {}
    places: list[tuple[Path | str, str]] = [
        *[(library, "<python>/") for library in libraries],
        (sys.prefix, "<python>/"),
        (out.parent, ""),
        (Path.cwd(), ""),
        (PACKAGE.parent, "" if checkout() else "<python>/"),
        (Path.home(), "~/"),
    ]
    for folder, name in places:
        for form in {str(folder), str(Path(folder).resolve())}:
            if form not in ("/", "/usr"):
                short.setdefault(form, name)
    return sorted(short.items(), key=lambda item: -len(item[0]))


def _shortened(short: str) -> Callable[[re.Match[str]], str]:
    """What replaces a root: the short form before the rest of a path, the same without its slash alone."""
    return lambda hit: short if hit[1] else short.rstrip("/") or "."


def _pattern(root: str) -> re.Pattern[str]:
    """The root as a whole path or the beginning of one; an ANSI colour code, which ends in m, may precede."""
    return re.compile(r"(?<![A-Za-ln-z0-9_.\-])" + re.escape(root) + r"(?:(/)|(?![\w.\-]))")
