"""Imports point one way: a room imports only rooms above it in this list."""

import ast
import subprocess
import sys
from collections.abc import Set
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.rooms import ROOMS

PACKAGE = Path(__file__).parents[1] / "varlab"
ORDER = tuple(ROOMS)
STRANGERS = {("accelerators", "probes"), ("probes", "accelerators")}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, modules: Set[str]) -> set[str]:
    """Files that a file imports, at its top, within functions or for the types alone."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= whole & modules or {node.module}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & modules


@cache
def arrows() -> dict[str, set[str]]:
    files = {module(path): path for path in PACKAGE.rglob("*.py")}
    return {name: imported(path, files.keys()) - {name} for name, path in files.items()}


def imports(path: Path) -> set[str]:
    """Rooms that a file imports."""
    return {name.split(".")[1] for name in arrows()[module(path)] if "." in name}


def test_every_file_is_in_a_known_room() -> None:
    found = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found <= set(ROOMS), f"new rooms need a place in ROOMS: {found - set(ROOMS)}"


def test_files_are_small() -> None:
    here = Path(__file__).parent
    sizes = {path.name: path.stat().st_size for root in (PACKAGE, here) for path in root.rglob("*.py")}
    assert not (large := {name: size for name, size in sizes.items() if size > 15 * 1024}), large


def test_imports_point_to_rooms_above() -> None:
    back = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        if room(path) in ROOMS
        for name in imports(path)
        if ORDER.index(name) > ORDER.index(room(path)) or (room(path), name) in STRANGERS
    ]
    assert not back


def test_every_room_states_its_duty() -> None:
    rooms = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__"}
    assert set(ROOMS) == rooms
    assert all(20 < len(duty) < 120 for name, duty in ROOMS.items() if name != "cli")


def test_no_circle_among_files() -> None:
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_a_circle_of_types_is_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("if TYPE_CHECKING:\n    from varlab.b import B\n")
    assert imported(tmp_path / "a.py", {"varlab.b"}) == {"varlab.b"}
    with pytest.raises(CycleError):
        TopologicalSorter({"varlab.a": {"varlab.b"}, "varlab.b": {"varlab.a"}}).prepare()


def test_figures_and_reports_need_no_model() -> None:
    files = [path for name in ("analysis", "figures", "reports") for path in (PACKAGE / name).rglob("*.py")]
    for path in files:
        assert not imports(path) & {"models", "weights", "engine", "accelerators"}, path


def test_tables_need_neither_torch_nor_a_drawing_verdicts_no_drawing_and_figures_no_notebook() -> None:
    """Asked of a fresh interpreter: what a file imports may import more, and nbformat takes seconds."""
    asked = ["import sys"]
    rooms = (("analysis", {"torch", "matplotlib"}), ("claims", {"matplotlib"}), ("figures", {"nbformat"}))
    for name, forbidden in rooms:
        asked += [f"import varlab.{name}.{path.stem}" for path in (PACKAGE / name).glob("[a-z]*.py")]
        asked += [f"print({name!r}, {forbidden} & sys.modules.keys())"]
    found = subprocess.run([sys.executable, "-c", "\n".join(asked)], capture_output=True, text=True)
    assert found.stdout.split("\n") == ["analysis set()", "claims set()", "figures set()", ""], found


def test_no_file_hides_a_name_of_the_package() -> None:
    """Importing a file sets its name on the package: a function of that name would be gone."""
    import varlab

    modules = {path.stem for path in Path(varlab.__file__).parent.iterdir()}
    assert set(varlab.__all__) & modules <= {"figures", "reports"}  # these two are meant as modules


def test_the_page_on_the_architecture_lists_the_rooms_in_their_order() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    rows = [f"| `{name}{'/' if (PACKAGE / name).is_dir() else ''}` | {duty} |" for name, duty in ROOMS.items()]
    assert "\n".join(rows) in page
