"""The inputs of a notebook, read from its `parameters` cell and checked before anything runs.

papermill takes any name and any value; a mistyped name would silently run a long notebook with the default.
"""

import ast
import io
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from varlab.errors import VarlabError, quoted, unknown
from varlab.reports.notebooks import read_notebook, tags

REPORT_FOLDER = "report_folder"
SUPPORTED = "int, float, str, bool, list[int], list[float], list[str], and any of these with | None"


@dataclass(frozen=True)
class Kind:
    """A supported annotation: its scalar type, whether it is a list of it, whether None is allowed."""

    scalar: str
    many: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Parameter:
    """One input of a notebook: `n: int = 8  # images per class`."""

    name: str
    annotation: str
    default: Any
    help: str = ""

    def coerce(self, value: Any) -> Any:
        """The value in the parameter's type; text from the command line ("3", "true", "1,2", "none") is read.

        Errors: a value of another type.
        """
        kind = _kind(ast.parse(self.annotation, mode="eval").body)
        try:
            return _coerce(value, kind)
        except (TypeError, ValueError):
            message = f"Parameter {self.name} expects {self.annotation}, got {quoted(value)}."
            raise VarlabError(f"{message} {self.help}".rstrip()) from None


def notebook_parameters(path: Path | str) -> dict[str, Parameter]:
    """The parameters of a notebook, in its order.

    Errors: no cell tagged `parameters` or several; a line that is not `name: type = default`; an unsupported
    type; a default that is not of its type.
    """
    cells = [cell for cell in read_notebook(path).cells if "parameters" in tags(cell)]
    if len(cells) != 1 or cells[0].cell_type != "code":
        count = len(cells) or "no"
        raise VarlabError(f"{path} has {count} cells tagged 'parameters'; a report has exactly one, of code.")
    try:
        return _read_cell(cells[0].source)
    except VarlabError as error:
        raise VarlabError(f"{path}, cell 'parameters': {error}") from None


def own_inputs(declared: Mapping[str, Parameter]) -> dict[str, Any]:
    """The values in a notebook's cell, but for the folder, which the runner sets."""
    return {name: parameter.default for name, parameter in declared.items() if name != REPORT_FOLDER}


def check_parameters(declared: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """The given values in their types. Starts nothing.

    Errors: an unknown name, with near names; a value of the wrong type; `report_folder`, set by the runner.
    """
    if REPORT_FOLDER in given:
        raise VarlabError(f"{REPORT_FOLDER} is set by the runner; choose the place with `out`.")
    settable = {name: parameter for name, parameter in declared.items() if name != REPORT_FOLDER}
    for name in given:
        if name not in settable:
            raise unknown("parameter", name, settable)
    return {name: settable[name].coerce(value) for name, value in given.items()}


# The cell -----------------------------------------------------------------------------------------


def _read_cell(source: str) -> dict[str, Parameter]:
    """The parameters of a cell's source; a trailing comment is the help."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise VarlabError(f"line {error.lineno} is not Python: {error.msg}.") from None
    comments = _comments(source)
    found: dict[str, Parameter] = {}
    for statement in statements:
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a note in quotes
        parameter = _read_statement(statement, comments.get(statement.end_lineno or 0, ""))
        if parameter.name in found:
            raise VarlabError(f"{parameter.name} is declared twice.")
        found[parameter.name] = parameter
    return found


def _read_statement(statement: ast.stmt, comment: str) -> Parameter:
    """One annotated assignment as a parameter."""
    if not (isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)):
        raise VarlabError(f"line {statement.lineno} is not `name: type = default  # help`.")
    if statement.value is None:
        raise VarlabError(f"{statement.target.id} has no default; a notebook must also run as it is.")
    name, annotation = statement.target.id, ast.unparse(statement.annotation)
    try:
        _kind(statement.annotation)
    except ValueError:
        raise VarlabError(f"{name} has the type {annotation}; supported are {SUPPORTED}.") from None
    try:
        default = ast.literal_eval(statement.value)
    except ValueError:
        text = ast.unparse(statement.value)
        raise VarlabError(f"the default of {name} is not a plain value: {text}.") from None
    parameter = Parameter(name, annotation, default, comment)
    if isinstance(default, str) and _kind(statement.annotation).scalar != "str":
        raise VarlabError(f"Parameter {name} expects {annotation}, its default is {quoted(default)}.")
    return Parameter(name, annotation, parameter.coerce(default), comment)


def _comments(source: str) -> dict[int, str]:
    """The comment that ends each line."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


# Types --------------------------------------------------------------------------------------------


def _kind(annotation: ast.expr) -> Kind:
    """The kind of an annotation. ValueError: not one of the supported ones."""
    match annotation:
        case ast.Name(id=name) if name in _READERS:
            return Kind(name)
        case ast.Subscript(value=ast.Name(id="list"), slice=ast.Name(id="int" | "float" | "str" as name)):
            return Kind(name, many=True)
        case ast.BinOp(left=kind, op=ast.BitOr(), right=ast.Constant(value=None)):
            inner = _kind(kind)
        case ast.BinOp(left=ast.Constant(value=None), op=ast.BitOr(), right=kind):
            inner = _kind(kind)
        case _:
            raise ValueError(ast.unparse(annotation))
    return Kind(inner.scalar, inner.many, optional=True)


def _coerce(value: Any, kind: Kind) -> Any:
    """The value in its kind. ValueError or TypeError: it is not of that kind."""
    if kind.optional and (value is None or (isinstance(value, str) and value.strip().lower() == "none")):
        return None
    read = _READERS[kind.scalar]
    if not kind.many:
        return read(value)
    if isinstance(value, str):
        value = _split(value)
    if not isinstance(value, list | tuple):
        raise TypeError(value)
    return [read(item) for item in value]


def _split(text: str) -> list[str]:
    """The items of "1,2,3", "[1, 2, 3]" or "'a', 'b'"; nothing for an empty text."""
    items = text.strip().removeprefix("[").removesuffix("]").strip()
    return [item.strip().strip("'\"") for item in items.split(",")] if items else []


def _read_int(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return value


def _read_float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError(value)
    return float(value)


def _read_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    value.encode()  # half a character is a ValueError: no notebook can hold it
    return value


def _read_bool(value: Any) -> bool:
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


_READERS: dict[str, Callable[[Any], Any]] = {
    "int": _read_int,
    "float": _read_float,
    "str": _read_str,
    "bool": _read_bool,
}
