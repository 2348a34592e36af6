"""Imports point one way: a room imports only rooms above it in this list."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "varlab"
ROOMS = (
    "errors", "resources", "writing", "locks", "weight_labels", "markup", "specs", "outputs", "context", "machine",
    "schedules", "measures", "models", "weights", "scenes", "engine", "accelerators", "probes", "runs", "analysis",
    "comparison", "claims", "reports", "figures", "training", "evaluation", "parity", "timing", "studies", "api", "cli",
)  # fmt: skip
STRANGERS = {("accelerators", "probes"), ("probes", "accelerators")}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, at its top or within functions; not those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("varlab.")} & set(ROOMS)


def test_every_file_is_in_a_known_room() -> None:
    found = {room(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert found <= set(ROOMS), f"new rooms need a place in ROOMS: {found - set(ROOMS)}"


def test_imports_point_to_rooms_above() -> None:
    back = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        if room(path) in ROOMS
        for name in imports(path)
        if ROOMS.index(name) > ROOMS.index(room(path)) or (room(path), name) in STRANGERS
    ]
    assert not back


def test_figures_and_reports_need_no_model() -> None:
    files = [path for name in ("analysis", "figures", "reports") for path in (PACKAGE / name).rglob("*.py")]
    for path in files:
        assert not imports(path) & {"models", "weights", "engine", "accelerators"}, path


def test_tables_need_neither_torch_nor_a_drawing_and_verdicts_no_drawing() -> None:
    """Asked of a fresh interpreter: what a file imports may import more."""
    for name, forbidden in (("analysis", ("torch", "matplotlib")), ("claims", ("matplotlib",))):
        files = [f"varlab.{name}.{path.stem}" for path in (PACKAGE / name).glob("[a-z]*.py")]
        asked = f"import sys, {', '.join(files)}; print([name for name in {forbidden} if name in sys.modules])"
        assert subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True).stdout.strip() == "[]", (
            name
        )


def test_no_file_hides_a_name_of_the_package() -> None:
    """Importing a file sets its name on the package: a function of that name would be gone."""
    import varlab

    modules = {path.stem for path in Path(varlab.__file__).parent.iterdir()}
    assert set(varlab.__all__) & modules <= {"figures", "reports"}  # these two are meant as modules
