"""Many reports from one file: two at a time, an unchanged one not made again, a failed one in nobody's way."""

import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

from varlab.errors import VarlabError, unknown
from varlab.reports.index import write_index
from varlab.reports.notebooks import find_notebook, read_notebook
from varlab.reports.parameters import REPORT_FOLDER, check_parameters, notebook_parameters
from varlab.reports.run import checked_name, report_key, report_name, run_report

FIELDS = ("report", "parameters", "name")
Check = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]  # defaults, given -> inputs
Told = Callable[[str, str], None]  # a report's name, how it stands


@dataclass(frozen=True)
class Order:
    """One report to be made: the notebook, its inputs, the folder's name."""

    notebook: Path
    inputs: dict[str, Any]
    name: str


def read_batch(path: Path | str, check: Check | None = None) -> list[Order]:
    """The reports of a YAML file: a list of ``report`` (a name or path), ``parameters`` and, if wanted, ``name``.

    All are checked before one is made; ``check`` completes the inputs as ``varlab.report_inputs.check_inputs`` does.

    Raises
    ------
    VarlabError
        For a file that cannot be read or is no such list, for unknown fields, reports and parameters, and for two
        reports of one name.
    """
    import yaml

    try:
        entries = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise VarlabError(f"{path} cannot be read ({error.strerror}).") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise VarlabError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(entries, list) or not entries:
        raise VarlabError(f"{path} is not a list of reports. Write, for example: - report: 01_residual_spectra")
    orders = [_order(entry, f"{path}, entry {i}", check) for i, entry in enumerate(entries, 1)]
    names = [order.name for order in orders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise VarlabError(f"{path} has two reports of the name {twice[0]}: give one of them another name.")
    return orders


def _order(entry: Any, place: str, check: Check | None) -> Order:
    if isinstance(entry, str):
        entry = {"report": entry}
    if not isinstance(entry, dict) or "report" not in entry:
        raise VarlabError(f"{place}: there is no `report:`.")
    if strange := [str(name) for name in entry if name not in FIELDS]:
        raise VarlabError(f"{place}: {unknown('field', strange[0], FIELDS)}")
    given = entry.get("parameters") or {}
    if not isinstance(given, dict):
        raise VarlabError(f"{place}: `parameters:` takes NAME: VALUE lines, not {given!r}.")
    try:
        notebook = find_notebook(str(entry["report"]))
        declared = notebook_parameters(notebook)
        inputs = check_parameters(declared, {str(name): value for name, value in given.items()})
        if check is not None:
            inputs = check({name: parameter.default for name, parameter in declared.items()}, inputs)
        name = checked_name(str(entry.get("name") or report_name(notebook.stem, declared, inputs)))
    except VarlabError as error:
        raise VarlabError(f"{place}: {error}") from None
    return Order(notebook.resolve(), inputs, name)


def make_batch(
    orders: Sequence[Order],
    out: Path | str = "reports",
    *,
    workers: int = 2,
    fresh: bool = False,
    overwrite: bool = False,
    told: Told | None = None,
) -> dict[str, str]:
    """Make the reports, ``workers`` at a time, and renew the index. Returns why reports failed, by name.

    A finished report of the same notebook, inputs and code is left as it is, unless ``fresh``. ``told`` takes a name
    and how it stands: ``unchanged``, ``cell 3 of 12``, ``done``, or what went wrong.
    """
    if workers < 1:
        raise VarlabError(f"workers must be at least 1, not {workers}.")
    place, tell = Path(out).resolve(), told or (lambda name, state: None)
    waiting = [order for order in orders if fresh or not _is_made(order, place)]
    for order in orders:
        if order not in waiting:
            tell(order.name, "unchanged")
    failed: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")  # a kernel is started from a process without threads of torch
    with context.Manager() as manager, ProcessPoolExecutor(workers, mp_context=context) as pool:
        queue = manager.Queue()
        running: dict[Future[str], str] = {
            pool.submit(_make_one, order, place, overwrite, queue): order.name for order in waiting
        }
        while running:
            ended, _ = wait_for(running, timeout=0.2)
            _pass_on(queue, tell)
            for future in ended:
                name, error = running.pop(future), future.exception()
                state = f"{type(error).__name__}: {error}" if error else future.result()
                if state:
                    failed[name] = state
                tell(name, state or "done")
    if place.is_dir():
        write_index(place)
    return failed


def _is_made(order: Order, out: Path) -> bool:
    """Whether the folder holds this very report, finished."""
    path = out / order.name / f"{order.name}.ipynb"
    if not path.is_file() or not path.with_suffix(".html").is_file():
        return False
    try:
        held = read_notebook(path).metadata.get("varlab", {})
    except VarlabError:
        return False
    return held.get("status") == "complete" and held.get("key") == report_key(order.notebook, _all(order))


def _all(order: Order) -> dict[str, Any]:
    declared = notebook_parameters(order.notebook)
    return {name: p.default for name, p in declared.items() if name != REPORT_FOLDER} | order.inputs


def _make_one(order: Order, out: Path, overwrite: bool, queue: Any) -> str:
    """In a process of its own: what went wrong, or nothing."""

    def progress(done: float, total: int) -> None:
        queue.put((order.name, f"cell {done:.0f} of {total}"))

    try:
        run_report(order.notebook, order.inputs, out, name=order.name, progress=progress, overwrite=overwrite)
    except VarlabError as error:
        return str(error)
    return ""


def _pass_on(queue: Any, tell: Told) -> None:
    while True:
        try:
            tell(*queue.get_nowait())
        except Empty:
            return
