"""Where the notebooks are, and reading one."""

from pathlib import Path
from typing import TYPE_CHECKING

from varlab.errors import VarlabError, unknown
from varlab.resources import shipped

if TYPE_CHECKING:
    from nbformat import NotebookNode


def notebook_folder() -> Path:
    """The `notebooks/` folder at the working directory where that holds reports, else the shipped one."""
    here = Path.cwd()
    own = here if here.name == "notebooks" else here / "notebooks"
    return own if any(map(_is_report, own.glob("*.ipynb"))) else shipped("notebooks")


def _is_report(path: Path) -> bool:
    """Whether a notebook declares inputs; other people's notebooks may lie in a folder of that name."""
    try:
        return any("parameters" in tags(cell) for cell in read_notebook(path).cells)
    except VarlabError:
        return False


def list_notebooks(folder: Path | str | None = None) -> dict[str, Path]:
    """Report names and their notebooks, in name order; `folder` defaults to `notebook_folder()`."""
    place = Path(folder) if folder is not None else notebook_folder()
    if not place.is_dir():
        raise VarlabError(f"No notebooks folder at {place}.")
    return {path.stem: path for path in sorted(place.glob("*.ipynb"))}


def find_notebook(notebook: Path | str, folder: Path | str | None = None) -> Path:
    """The notebook of a report name (`01_residual_spectra`) or of a path to an .ipynb file.

    Without a folder, a name is looked for among the reports at the working directory first, then the shipped ones.

    Errors: an unknown name, with near names; a path without a file.
    """
    path = Path(notebook)
    if path.suffix == ".ipynb" and path.is_file():
        return path
    if path.suffix == ".ipynb" and path.name != str(notebook):
        raise VarlabError(f"No notebook at {path}.")
    known = list_notebooks(folder) if folder else list_notebooks(shipped("notebooks")) | list_notebooks()
    name = path.stem if path.suffix == ".ipynb" else str(notebook)
    if name not in known:
        raise unknown("report", name, known)
    return known[name]


def read_notebook(path: Path | str) -> "NotebookNode":
    """A notebook as nbformat 4.

    Errors: no such file, or a file that is not a notebook.
    """
    from varlab.reports.nbformats import nbformat  # which a figure need not wait for

    try:
        return nbformat.read(Path(path), as_version=4)
    except FileNotFoundError:
        raise VarlabError(f"No notebook at {path}.") from None
    except (ValueError, nbformat.ValidationError, AttributeError) as error:  # not JSON, or not a notebook
        raise VarlabError(f"{path} is not a readable notebook: {str(error).splitlines()[0]}") from None


def tags(cell: "NotebookNode") -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))
