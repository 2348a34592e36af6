"""Reports that are to be made: read from a batch file, checked, and held against what lies in their places."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError, quoted, unknown
from varlab.reports.notebooks import find_notebook
from varlab.reports.others import another_report, refuse_another
from varlab.reports.parameters import check_parameters, notebook_parameters, own_inputs
from varlab.reports.run import checked_name, report_name

FIELDS = ("report", "parameters", "name")
Check = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]  # defaults, given -> inputs
Read = Callable[[Mapping[str, Any]], dict[str, str]]  # inputs -> what they name, and its digest


@dataclass(frozen=True)
class Order:
    """One report to be made: the notebook, its inputs, the folder's name."""

    notebook: Path
    inputs: dict[str, Any]
    name: str
    read: dict[str, str] = field(default_factory=dict)

    @property
    def all_inputs(self) -> dict[str, Any]:
        """Those given, and the notebook's own."""
        return own_inputs(notebook_parameters(self.notebook)) | self.inputs


def read_batch(path: Path | str, check: Check | None = None, read: Read | None = None) -> list[Order]:
    """The reports of a YAML file: a list of ``report`` (a name or path), ``parameters`` and, if wanted, ``name``.

    All are checked before one is made; ``check`` completes the inputs as ``varlab.report_inputs.check_inputs`` does,
    and ``read`` tells the files that they name from others, as its ``digests``.

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
    orders = [_order(entry, f"{path}, entry {i}", check, read) for i, entry in enumerate(entries, 1)]
    names = [order.name for order in orders]
    if twice := [name for name in names if names.count(name) > 1]:
        raise VarlabError(f"{path} has two reports of the name {twice[0]}: give one of them another name.")
    return orders


def _order(entry: Any, place: str, check: Check | None, read: Read | None) -> Order:
    if isinstance(entry, str):
        entry = {"report": entry}
    if not isinstance(entry, dict) or "report" not in entry:
        raise VarlabError(f"{place}: there is no `report:`.")
    if strange := [str(name) for name in entry if name not in FIELDS]:
        raise VarlabError(f"{place}: {unknown('field', strange[0], FIELDS)}")
    given = entry.get("parameters") or {}
    if not isinstance(given, dict):
        raise VarlabError(f"{place}: `parameters:` takes NAME: VALUE lines, not {quoted(given)}.")
    try:
        return order_of(str(entry["report"]), given, str(entry.get("name") or ""), check, read)
    except VarlabError as error:
        raise VarlabError(f"{place}: {error}") from None


def order_of(
    report: Path | str, given: Mapping[str, Any], name: str = "", check: Check | None = None, read: Read | None = None
) -> Order:
    """One report, checked; its ``name`` is by default that of the notebook and the inputs that differ from its own.

    Raises
    ------
    VarlabError
        For an unknown report or parameter, a value of another type, and what ``check`` refuses.
    """
    notebook = find_notebook(report)
    declared = notebook_parameters(notebook)
    inputs = check_parameters(declared, {str(key): value for key, value in given.items()})
    if check is not None:
        inputs = check({key: parameter.default for key, parameter in declared.items()}, inputs)
    order = Order(notebook.resolve(), inputs, checked_name(name or report_name(notebook.stem, declared, inputs)))
    return order if read is None else replace(order, read=read(order.all_inputs))


def refuse_others(orders: Iterable[Order], out: Path) -> None:
    """Refuse to replace reports of other inputs.

    Raises
    ------
    VarlabError
        Names all of them, with what differs.
    """
    refuse_another(*(another_report(out / order.name, order.all_inputs, order.inputs) for order in orders))
