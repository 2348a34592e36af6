"""Where shipped files lie, and what a record says of the code, in a checkout and out of one."""

import subprocess
from pathlib import Path

import pytest

from varlab import resources
from varlab.errors import VarlabError
from varlab.runs.run import runs_folder
from varlab.training.pipeline import begin_from
from varlab.training.recipes import recipe
from varlab.weights.embedded import card_folder, data_folder, mini_folder

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _forget() -> None:
    resources.checkout.cache_clear()
    resources.git_state.cache_clear()


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package as a wheel leaves it, in a virtual environment within somebody's repository."""
    package = tmp_path / "their project" / ".venv" / "varlab"
    mini = package / "_shipped" / "data" / "toy"
    mini.mkdir(parents=True)
    (mini / "model.json").touch()
    _commit(tmp_path / "their project")
    _lie_in(package, monkeypatch)
    return package


def _commit(folder: Path) -> str:
    """The commit of a new repository."""
    (folder / "pyproject.toml").touch()
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "pyproject.toml"), ("commit", "-qm", "first")):
        subprocess.run([*git, *words], cwd=folder, check=True)
    return subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True
    ).stdout.strip()


def _lie_in(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "PACKAGE", package)
    monkeypatch.setattr(resources, "INSIDE", package / "_shipped")


def test_a_checkout_has_its_files_at_the_top() -> None:
    assert resources.checkout() == ROOT
    assert (resources.shipped("data"), resources.shipped("notebooks")) == (ROOT / "data", ROOT / "notebooks")


def test_an_installed_package_has_them_inside(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VARLAB_DATA", raising=False)
    assert resources.checkout() is None
    assert data_folder() == installed / "_shipped" / "data"
    monkeypatch.chdir(installed.parent)
    assert runs_folder() == Path("runs")


def test_an_installed_package_is_not_written_to(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VARLAB_DATA", raising=False)
    with pytest.raises(VarlabError, match="VARLAB_DATA"):
        card_folder("toy")
    monkeypatch.setenv("VARLAB_DATA", str(installed.parent))
    own = installed.parent / "toy"
    own.mkdir()
    (own / "model.json").touch()
    assert card_folder("toy") == own


def test_the_commit_is_not_that_of_a_repository_around_the_package(installed: Path) -> None:
    assert resources.git_state() == "installed"


def test_the_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = _commit(tmp_path)
    _lie_in(tmp_path / "varlab", monkeypatch)
    assert resources.git_state() == commit
    (tmp_path / "new").touch()
    assert resources.git_state() == commit  # asked once a process
    resources.git_state.cache_clear()
    assert resources.git_state() == f"{commit}+"


def test_an_unpacked_archive_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _commit(tmp_path)
    inner = tmp_path / "varlab-0.1.0"
    inner.mkdir()
    (inner / "pyproject.toml").touch()
    _lie_in(inner / "varlab", monkeypatch)
    assert resources.checkout() == inner
    assert resources.git_state() == "unknown"


def test_training_starts_from_a_mini_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert mini_folder("nano-infinity") == ROOT / "data" / "nano-infinity"
    run = tmp_path / "run"
    run.mkdir()
    begin_from(recipe("nano-infinity"), run, Path("nano-infinity"))
    assert (run / "from" / "model.safetensors").is_file()
