"""The wheel, installed alone: everything that a user needs is inside, and nothing is asked of a checkout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("varlab", "data", "notebooks", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
USE = """
import sys
from pathlib import Path
import matplotlib
matplotlib.use("agg")
import varlab as vl
from varlab.resources import PACKAGE
assert PACKAGE.is_relative_to(Path(sys.prefix).resolve()), PACKAGE
run = vl.sample("mini-infinity", ["a red star"], seed=0, probes=["residual-spectrum"])
vl.figures.high_frequency_share(run.log).figure.savefig("share.png")
assert len(vl.prompts("geneval")) == 553
print(vl.__version__)
"""
pytestmark = pytest.mark.slow


def _run(command: list[str | Path], place: Path) -> str:
    """Standard output of a command that must go well, with nothing of this checkout in its surroundings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VARLAB", "VIRTUAL"))}
    done = subprocess.run(
        [str(word) for word in command], cwd=place, env=clean | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel; other packages are those of this one, without its varlab."""
    place = tmp_path_factory.mktemp("a fresh place")
    sources = place / "sources"
    sources.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, sources / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run([*pip, "wheel", sources, "--no-deps", "--no-build-isolation", "--no-index", "-w", place / "dist"], place)
    shutil.rmtree(sources)
    _run([sys.executable, "-m", "venv", "--without-pip", place / "env"], place)
    python = place / "env" / "bin" / "python"
    (wheel,) = (place / "dist").glob("*.whl")
    _run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], place)
    libraries = next((place / "env" / "lib").glob("python*/site-packages"))
    # A plain line of a .pth file adds a folder without reading the .pth files in it, an editable varlab's among them.
    folders = [folder for folder in sys.path if folder.endswith(("site-packages", "dist-packages"))]
    (libraries / "others.pth").write_text("\n".join(folders))
    (place / "env" / "share").mkdir(exist_ok=True)  # nbconvert keeps its templates outside of site-packages
    (place / "env" / "share" / "jupyter").symlink_to(Path(sys.prefix) / "share" / "jupyter")
    return place / "env" / "bin"


def test_the_wheel_samples_reports_and_draws_without_the_repository(environment: Path, tmp_path: Path) -> None:
    place = tmp_path / "some work"
    place.mkdir()
    assert (environment / "varlab").is_file()
    shipped = next(environment.parent.glob("lib/python*/site-packages/varlab/_shipped"))
    before = set(shipped.rglob("*"))
    listed = _run([environment / "varlab", "models"], place)
    assert all(name in listed for name in ("mini-infinity", "mini-hart", "mini-var-freqexit"))
    _run([environment / "varlab", "sample", "mini-infinity", "a red star above a blue ring"], place)
    assert len(list((place / "samples").rglob("*.png"))) == 1
    assert _run([environment / "python", "-c", USE], place).strip()
    assert (place / "share.png").stat().st_size
    _run([environment / "varlab", "report", "01_residual_spectra", "-p", "model=nano-infinity", "-p", "n=2"], place)
    (page,) = (place / "reports").glob("*/01_residual_spectra*.html")
    assert "data:image/png;base64" in page.read_text()
    assert (place / "reports" / "index.html").is_file()
    records = [json.loads(path.read_text()) for path in (place / "runs").rglob("run.json")]
    assert records and all(record["git"] == "installed" for record in records)
    assert set(shipped.rglob("*")) == before
