"""Run one notebook as a report: check the inputs, execute, tidy, turn into a page."""

import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

from varlab.errors import VarlabError, cause, quoted
from varlab.locks import NO_WAIT, one_writer
from varlab.outputs import key_of
from varlab.reports.facts import FACTS, FOLDER_VARIABLE, as_text
from varlab.reports.index import DRAFT, write_index
from varlab.reports.notebooks import find_notebook, read_notebook
from varlab.reports.others import another_report, refuse_another
from varlab.reports.parameters import REPORT_FOLDER, Parameter, check_parameters, notebook_parameters, own_inputs
from varlab.reports.tidy import path_cleaner, tidy_notebook
from varlab.resources import code_digest

LONGEST = 80  # letters of a report's name
INLINE = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # what matplotlib reads when it is imported
VERSIONS = ("varlab", "torch", "numpy", "matplotlib")
KEPT = (
    ".png",
    ".pdf",
    ".svg",
    ".csv",
)  # what figures and tables leave; a new run removes those of the last one


Progress = Callable[[float, int], None]  # cells done, cells in all


@dataclass(frozen=True)
class Report:
    """A finished report and its files."""

    name: str
    folder: Path
    notebook: Path
    html: Path
    index: Path


def run_report(
    notebook: Path | str,
    parameters: Mapping[str, Any],
    out: Path | str = "reports",
    *,
    name: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    wait: bool = True,
    read: Mapping[str, str] = MappingProxyType({}),
) -> Report:
    """Run a notebook and leave `<out>/<name>/<name>.ipynb`, `<name>.html` and its figures; renew the index.

    `notebook` is a path or a report name. Every parameter is checked before a kernel starts. The kernel is
    this interpreter, in the working directory; it gets `report_folder` as a parameter. The notebook is saved
    after each cell, in `<out>/<name>/draft/`, so an interrupted run stays readable. `name` is by default that of the
    notebook and of all inputs that differ from its own (`report_name`). A rerun of the same inputs that succeeds
    replaces what the last one wrote, one that fails leaves it and its own draft; a report of other inputs under that
    name is refused, unless `overwrite`. `progress` takes (cells done, cells in all). A second
    process that makes the same report waits for the first, or is refused without `wait`, also in its run folder.
    `read` tells the files that the inputs name from others, as `varlab.report_inputs.digests` does: when they change, a
    batch makes the report again.

    Errors: an unknown notebook or parameter, a value of the wrong type, a failing cell (with its message and
    the path of the half-run notebook), a kernel that dies.
    """
    source = find_notebook(notebook)
    declared = notebook_parameters(source)
    values = check_parameters(declared, parameters)
    inputs = own_inputs(declared) | values
    name = checked_name(name or report_name(source.stem, declared, values))
    folder = Path(out).resolve() / name
    with one_writer(folder, wait=wait):
        if not overwrite:
            refuse_another(another_report(folder, inputs, values))
        return _make(source, folder, inputs, values, progress, wait, read)


def _make(
    source: Path, folder: Path, inputs: dict[str, Any], values: dict[str, Any], progress: Progress | None, wait: bool,
    read: Mapping[str, str],
) -> Report:  # fmt: skip
    """Run the notebook in the folder's draft and move what it made up, as the folder's only writer."""
    draft, name, out = folder / DRAFT, folder.name, folder.parent
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    facts = {
        "report": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": _versions(),
        "parameters": inputs,
        "key": report_key(source, inputs, read),
    }
    path, start = draft / f"{name}.ipynb", monotonic()
    try:
        error = _execute(source, path, values, progress, wait)
    except KeyboardInterrupt as interrupt:
        _finish(path, {**facts, "status": "stopped", "error": "interrupted"})
        write_index(out)
        interrupt.add_note(f"The half-run notebook: {path}")
        raise
    _finish(
        path,
        {**facts, "status": "stopped" if error else "complete", "error": error, "seconds": round(monotonic() - start)},
    )
    if error:
        write_index(out)
        raise VarlabError(f"Report {name}: {error}\nThe half-run notebook: {path}")
    _write_page(source, path)
    _remove_last_run(folder, name)
    _move_up(draft)
    made = folder / path.name
    return Report(name, folder, made, made.with_suffix(".html"), write_index(folder.parent))


def _write_page(source: Path, path: Path) -> None:
    """The HTML page of an executed notebook, beside it."""
    from varlab.reports.page import notebook_page

    page = notebook_page(path, declared=notebook_parameters(source), pictures=source.parent)
    path.with_suffix(".html").write_text(page, "utf-8")


# Execution ----------------------------------------------------------------------------------------


def _execute(source: Path, path: Path, values: Mapping[str, Any], progress: Progress | None, wait: bool) -> str:
    """Execute into `path`, saving after each cell. Returns what failed, nothing when all went well."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    folder, total, tell = path.parent, _cells(source), progress or (lambda done, total: None)
    place = os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else str(folder)
    try:
        with _quiet():
            papermill.execute_notebook(
                str(source),
                str(path),
                parameters={**values, REPORT_FOLDER: place},
                kernel_name="python3",  # a label only: the kernel manager below decides what runs
                language="python",
                kernel_manager_class=_kernel_manager(folder, wait),
                progress_bar=False,
                on_cell_start=lambda cell, cell_index: tell(cell_index, total),
            )
            tell(total, total)
    except PapermillExecutionError as error:
        head = next((line for line in error.source.splitlines() if line.strip()), "")
        kind = "" if error.ename == "VarlabError" else f"{error.ename}: "
        return f"the cell that begins {quoted(head.strip())} failed. {kind}{_one_line(error.evalue)}".rstrip()
    except RuntimeError as error:  # nbclient and jupyter_client: the kernel did not start, or died
        return f"the kernel did not start or died ({cause(error)}). Not enough memory is the usual cause."
    return ""


def _cells(source: Path) -> int:
    """How many cells the executed notebook has: its parameters get one, unless an earlier run left it theirs."""
    return 1 + sum("injected-parameters" not in cell.metadata.get("tags", ()) for cell in read_notebook(source).cells)


def _one_line(message: str, most: int = 400) -> str:
    """An error's message without its line breaks; the notebook has all of it."""
    line = " ".join(message.split())
    return line if len(line) <= most else f"{line[:most]} ..."


def _kernel_manager(folder: Path, wait: bool) -> type:
    """A kernel manager that runs this interpreter, whatever kernels are installed, with inline figures.

    Without ``wait`` the run of the notebook waits for no other process either.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    from varlab.reports.forked import taken
    from varlab.reports.provisioner import Forked

    spec = KernelSpec(
        **get_kernel_dict(["--log-level=50"]),  # its command is sys.executable; its own log is noise
        env={
            **INLINE,
            FOLDER_VARIABLE: str(folder),
            **({} if wait else {NO_WAIT: "1"}),
        },
    )

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            if taken():
                self.provisioner = Forked(kernel_id="", kernel_spec=spec, parent=self)

        @property
        def kernel_spec(self) -> KernelSpec:
            return spec

    return ThisInterpreter


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence papermill's warnings about parameter cells; the inputs are already checked, more strictly."""
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


# Before and after ---------------------------------------------------------------------------------


def report_name(stem: str, declared: Mapping[str, Parameter], values: Mapping[str, Any]) -> str:
    """A notebook's name and what differs from its defaults: `20_compare-mini-hart-n-8`. The same for the same inputs;
    where a value is no plain word, or all would be long, 8 digits tell it from others that read the same."""
    other = {key: values[key] for key, p in declared.items() if key in values and values[key] != p.default}
    words = [as_text(value) if key == "model" else f"{key}-{as_text(value)}" for key, value in other.items()]
    plain = [re.sub(r"[^\w.]+", "-", word).strip("-.") for word in words]
    name = "-".join([stem, *plain])
    if len(name) <= LONGEST and all(re.fullmatch(r"[\w.-]+", word) for word in words):
        return name
    return f"{name[:LONGEST].rstrip('-.')}-{key_of(other)}"


def report_key(source: Path, inputs: Mapping[str, Any], read: Mapping[str, str]) -> str:
    """8 digits of all that decides a report: the notebook, its inputs and the files that they name, the code, and the
    versions of what it calls."""
    parts = {"notebook": source.read_text("utf-8"), "inputs": inputs, "read": dict(read)}
    return key_of(parts | {"code": code_digest(), "with": _versions()})


def checked_name(name: str) -> str:
    if name != Path(name).name or name.startswith("."):
        raise VarlabError(f"{quoted(name)} cannot name a report: use a plain folder name.")
    return name


def _remove_last_run(folder: Path, name: str) -> None:
    """Remove what the last run under this name wrote, so that no old figure stands beside new ones."""
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        return
    try:
        files = read_notebook(path).metadata.get("varlab", {}).get("files", [])
    except VarlabError:
        files = []
    mine = [folder / file for file in files if Path(file).suffix in KEPT]
    for file in [*mine, path.with_suffix(".html"), folder / FACTS]:
        if file.resolve().is_relative_to(folder):
            file.unlink(missing_ok=True)
    for name in files:
        place = (folder / name).resolve()
        if name.endswith("/") and place.parent == folder:
            shutil.rmtree(place, ignore_errors=True)


def _files(folder: Path) -> list[str]:
    """The files in a folder and below."""
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def _listed(notebook: Path) -> list[str]:
    """The files beside a notebook, and its folders, whose pictures may be thousands, each with a slash at its end."""
    found = (item for item in notebook.parent.iterdir() if item != notebook)
    return sorted(f"{item.name}/" if item.is_dir() else item.name for item in found)


def _move_up(draft: Path) -> None:
    """The finished draft becomes the report: its files go one folder up."""
    for file in _files(draft):
        place = draft.parent / file
        place.parent.mkdir(parents=True, exist_ok=True)
        (draft / file).replace(place)
    shutil.rmtree(draft)


def _finish(path: Path, facts: Mapping[str, Any]) -> None:
    """Tidy the executed notebook and its facts and note in it what the run was and wrote."""
    if not path.is_file():
        return
    from varlab.reports.nbformats import nbformat

    files = _listed(path)
    clean = path_cleaner(path.parent.parent.parent, path.parent)
    notebook = read_notebook(path)
    tidy_notebook(notebook, path.stem, clean)
    notebook.metadata["varlab"] = clean({**facts, "files": files})
    nbformat.write(notebook, path)
    _tidy_text(path.parent / FACTS, clean)


def _tidy_text(path: Path, clean: Callable[[Any], Any]) -> None:
    if path.is_file():
        path.write_text(clean(path.read_text("utf-8")), "utf-8")


def _versions() -> dict[str, str]:
    """Python and the packages that numbers and figures depend on."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in VERSIONS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
