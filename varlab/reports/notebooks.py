"""Where the notebooks are, and reading one."""

from pathlib import Path

import nbformat

from varlab.errors import VarlabError, unknown


def notebook_folder() -> Path:
    """The `notebooks/` folder: beside the working directory first, then beside the package.

    Errors: neither exists; the message names every place looked at.
    """
    here = Path.cwd()
    package = Path(__file__).resolve().parents[2]
    places = [here / "notebooks", package / "notebooks"]
    if here.name == "notebooks":
        places.insert(0, here)
    for place in places:
        if place.is_dir():
            return place
    looked = " and ".join(str(place) for place in dict.fromkeys(places))
    raise VarlabError(f"No notebooks folder: looked for {looked}. Run from the repository.")


def list_notebooks(folder: Path | str | None = None) -> dict[str, Path]:
    """Report names and their notebooks, in name order; `folder` defaults to `notebook_folder()`."""
    place = Path(folder) if folder is not None else notebook_folder()
    if not place.is_dir():
        raise VarlabError(f"No notebooks folder at {place}.")
    return {path.stem: path for path in sorted(place.glob("*.ipynb"))}


def find_notebook(notebook: Path | str, folder: Path | str | None = None) -> Path:
    """The notebook of a report name (`01_residual_spectra`) or of a path to an .ipynb file.

    Errors: an unknown name, with near names; a path without a file.
    """
    path = Path(notebook)
    if path.suffix == ".ipynb" and path.is_file():
        return path
    if path.suffix == ".ipynb" and path.name != str(notebook):
        raise VarlabError(f"No notebook at {path}.")
    known = list_notebooks(folder)
    name = path.stem if path.suffix == ".ipynb" else str(notebook)
    if name not in known:
        raise unknown("report", name, known)
    return known[name]


def read_notebook(path: Path | str) -> nbformat.NotebookNode:
    """A notebook as nbformat 4.

    Errors: no such file, or a file that is not a notebook.
    """
    try:
        return nbformat.read(Path(path), as_version=4)
    except FileNotFoundError:
        raise VarlabError(f"No notebook at {path}.") from None
    except (ValueError, nbformat.ValidationError, AttributeError) as error:  # not JSON, or not a notebook
        raise VarlabError(f"{path} is not a readable notebook: {str(error).splitlines()[0]}") from None


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.get("metadata", {}).get("tags", []))
