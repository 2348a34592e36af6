"""Errors of commands end in one line; nothing is made before all is checked; progress without a terminal."""

import ast
import errno
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from tests.cli_calls import Call, places, varlab  # noqa: F401  (fixtures)
from tests.conftest import hart_features, tiny_hart
from tests.test_cli import forbid
from varlab import progress
from varlab.cli import boundary, options
from varlab.engine.context import Context
from varlab.engine.hooks import Accelerator
from varlab.errors import VarlabError, quoted
from varlab.runs import log_run
from varlab.writing import check_writable, check_writable_file


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (VarlabError("n must be 1."), "n must be 1.", 2),
        (OSError(errno.ENOSPC, "No space left on device", "x.png"), "the disk is full: x.png. Free some", 2),
        (PermissionError(errno.EACCES, "Permission denied", "x.png"), "Permission denied: x.png.", 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "Is a directory: x.", 2),
        (MemoryError(), "memory ran out. Take a smaller batch", 2),
        (ModuleNotFoundError("No module named 'zarr'"), "a package is missing or broken (No module named 'zarr')", 2),
        (RuntimeError("CUDA out of memory.\nmore"), "the GPU failed (CUDA out of memory.).", 2),
        (KeyError("n"), "KeyError: 'n' (unexpected", 1),
        (ValueError("\nodd\nmore"), "ValueError: odd (unexpected", 1),
        (
            RuntimeError("worker 0\nTraceback (most recent call last):\n  x\nOSError: gone"),
            "RuntimeError: OSError: gone (",
            1,
        ),
        (ValueError(), "ValueError: no message (unexpected", 1),
    ],
)
def test_every_error_has_a_line_and_a_code(error: Exception, line: str, code: int) -> None:
    said, given = boundary.explain(error)
    assert said.startswith(line) and "\n" not in said and given == code


def test_a_warning_is_one_line_without_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["varlab"])
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    boundary.guarded(
        lambda arguments: sys.stderr.write(warnings.formatwarning("taken: \x1b ema.", UserWarning, "x.py", 3))
    )
    assert capsys.readouterr().err == "varlab: note: taken: ⟨U+001B⟩ ema.\n"


TYPED = r"\blue of $5 красный 红"


@pytest.mark.parametrize(
    "arguments",
    (
        ("sample", "nano-infinity", TYPED),
        ("sample", TYPED, "a red star"),
        ("sample", "nano-infinity", "a red star", "--method", f"{TYPED}:last=1"),
        ("sample", "nano-infinity", "a red star", "--method", f"truncate:last={TYPED}"),
        ("sample", "nano-infinity", "a red star", "--cfg", TYPED),
        ("log", "nano-infinity", "--prompts", f"{TYPED}.txt"),
        ("report", TYPED),
        ("report", "20_compare", "-p", f"n={TYPED}"),
        ("score", TYPED, "nano-infinity"),
        ("runs", "verify", TYPED),
        ("show", f"{TYPED}.png"),
        ("compare", "folder", TYPED),
    ),
)
def test_errors_quote_what_was_typed(varlab: Call, arguments: tuple[str, ...]) -> None:
    varlab(*arguments).refused(TYPED)


def test_a_file_that_cannot_be_read_is_named_once_as_typed(varlab: Call) -> None:
    Path(f"{TYPED}.png").write_text("no image")
    for arguments, why in ((("show", f"{TYPED}.png"), "it is no image"), (("sweep", f"{TYPED}.yaml"), "No such file")):
        refused = varlab(*arguments)
        refused.refused(TYPED, why)
        assert refused.err.count("blue") == 1 and "Errno" not in refused.err


def test_refusals_speak_of_numbers_as_people_do(varlab: Call) -> None:
    draw = ("sample", "nano-infinity", "a red star", "--method")
    varlab(*draw, "truncate:last=x").refused("last takes a whole number, not 'x'")
    varlab(*draw, "sparsevar:tau=x").refused("tau takes a number, not 'x'")
    Path("one.txt").write_text("a red star")
    varlab("log", "nano-infinity", "--prompts", "one.txt", "--n", "2").refused("holds 1 prompt, not 2")


def test_a_quoted_text_is_one_line_as_typed() -> None:
    assert [quoted(given) for given in (r"\b", "it's", "a\nb", "", 3, None, [r"\b", 2])] == [
        r"'\b'", '"it\'s"', "'a⟨U+000A⟩b'", "''", "3", "None", r"['\b', 2]"
    ]  # fmt: skip


def test_no_error_writes_a_text_as_python_does() -> None:
    own = {"error", "delimiter"}  # exceptions, and a tab
    for path in Path(boundary.__file__).parents[1].rglob("*.py"):
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        for call in (call for call in calls if getattr(call.func, "id", "") == "VarlabError"):
            parts = (part for part in ast.walk(call) if isinstance(part, ast.FormattedValue))
            assert not [part for part in parts if part.conversion == ord("r") and ast.unparse(part.value) not in own]


def test_lines_of_a_terminal_show_every_character(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "a\x0bb\x85c\x1b[31md\u2028e\u202ef\u2066g :star: [b] 星 \U0001f468\u200d\U0001f469"
    seen = "a⟨U+000B⟩b⟨U+0085⟩c⟨U+001B⟩[31md⟨U+2028⟩e⟨U+202E⟩f⟨U+2066⟩g :star: [b] 星 \U0001f468\u200d\U0001f469"
    monkeypatch.setattr(options, "console", Console(width=200))
    options.say(typed)
    options.say(("prompt: ", "bold"), typed)
    options.console.print(options.as_table(pd.DataFrame({"prompt": [typed]})))
    first, second, *table = capsys.readouterr().out.splitlines()
    assert (first, second) == (seen, f"prompt: {seen}") and any(seen in line for line in table)

    def fails(_: object) -> None:
        raise VarlabError(typed)

    with pytest.raises(SystemExit):
        boundary.guarded(fails)
    assert capsys.readouterr().err == f"varlab: {seen}\n"


@pytest.mark.parametrize("place", [0, 1, 3, None])
def test_the_traceback_is_kept_for_debug(varlab: Call, monkeypatch: pytest.MonkeyPatch, place: int | None) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("odd")

    monkeypatch.setattr("varlab.api.sample", fails)
    arguments = ["sample", "nano-infinity", "a star"]
    if place is not None:
        arguments.insert(place, "--debug")
    outcome = varlab(*arguments)
    last = "varlab: ValueError: odd (unexpected; `varlab --debug ...` shows where it happened)\n"
    assert outcome.code == 1 and outcome.err.endswith(last)
    assert ("Traceback" in outcome.err) == (place is not None)


def test_a_window_system_that_is_set_up_badly_is_no_concern() -> None:
    code = (
        "import sys; from varlab.cli.boundary import guarded; sys.argv = ['varlab', 'x']; "
        "guarded(lambda given: (__import__('matplotlib.pyplot'), print(given)))"
    )
    environment = {**os.environ, "MPLBACKEND": "nonsense", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['x']\n", "")


A_FILE = {
    "sample": ["sample", "nano-infinity", "a star", "--out", "file"],
    "log": ["log", "nano-infinity", "--out", "file"],
    "below": ["log", "nano-infinity", "--out", "file/run"],
    "compare": ["compare", "nano-infinity", "none", "--out", "file"],
    "report": ["report", "01_residual_spectra", "--out", "file"],
    "calibrate": ["calibrate", "sparsevar", "nano-infinity", "--out", "file"],
    "split": ["split", "nano-infinity", "--out", "file"],
    "savings": ["savings", "--out", "file"],
    "bench": ["bench", "growth", "--out", "file"],
    "train": ["train", "nano-infinity", "--folder", "file"],
    "trained": ["train", "nano-infinity", "--out", "file"],
    "ablate": ["ablate", "--model", "nano-infinity", "--out", "file"],
    "ablated": ["ablate", "--model", "nano-infinity", "--folder", "file"],
}


@pytest.mark.parametrize("arguments", A_FILE.values(), ids=A_FILE)
def test_a_file_in_place_of_a_folder_is_named_before_work(
    varlab: Call,
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
) -> None:
    forbid(monkeypatch, "varlab.weights.zoo.load", "varlab.reports.run_report", "varlab.training.command.train_command")
    (places / "here" / "file").write_text("mine")
    varlab(*arguments).refused("file", "cannot be written in", "Give another folder")
    assert [path.name for path in (places / "here").iterdir()] == ["file"]
    assert (places / "here" / "file").read_text() == "mine"


A_FOLDER = {
    "score": ["score", "scenes", "nano-infinity", "--json", "folder"],
    "latency": ["latency", "nano-infinity", "--out", "folder"],
    "exits": ["exits", "nano-infinity", "--out", "folder"],
    "export": ["export", "nano-infinity", "folder"],
}


@pytest.mark.parametrize("arguments", A_FOLDER.values(), ids=A_FOLDER)
def test_a_folder_in_place_of_a_file_is_named_before_work(
    varlab: Call,
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[object],
) -> None:
    forbid(monkeypatch, "varlab.weights.zoo.load")
    (places / "here" / "folder").mkdir()
    varlab(*arguments).refused("is a folder")


def test_checks_make_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable_file(tmp_path / "a" / "b.json", ".json")
    assert not (tmp_path / "a").exists()


def test_a_refused_run_leaves_its_folder_free(tmp_path: Path) -> None:
    """HART takes no negative prompt: the command without one finds no other run in its folder."""
    model, text = tiny_hart(), hart_features(3, 2)
    with pytest.raises(VarlabError, match="negative prompt"):
        log_run(model, text, tmp_path / "h", probes=["token-mse"], negative="a star")
    assert not (tmp_path / "h").exists()


class Unfit(Accelerator):
    name = "unfit"

    def start(self, context: Context) -> None:
        raise VarlabError("unfit: this model has no exits.")


def test_a_method_that_cannot_run_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(VarlabError, match="no exits"):
        log_run(tiny_hart(), hart_features(3, 2), tmp_path / "h", probes=["token-mse"], accelerators=Unfit())
    assert not (tmp_path / "h").exists()


def test_log_says_where_it_wrote_and_lists_it(varlab: Call, places: Path) -> None:
    made = varlab("log", "nano-infinity", "--n", 1, "--probe", "token-mse")
    (folder,) = (places / "here" / "runs").iterdir()
    assert made.code == 0 and f"written to {folder.relative_to(places / 'here')}" in made.out
    listed = varlab("runs", "ls")
    assert listed.code == 0 and "nano-infinity" in listed.out and "complete" in listed.out and "1 run\n" in listed.out
    assert f"{folder}: complete" in varlab("runs", "verify", folder).out
    next(path for path in (folder / "log.zarr" / "token-mse").rglob("*") if path.is_file()).unlink()
    assert varlab("runs", "verify", folder).code == 1
    varlab("log", "nano-infinity", "--n", 1, "--probe", "token-mse").refused("is damaged", "varlab runs repair")
    assert "the same command makes it again" in varlab("runs", "repair", folder).out
    assert varlab("log", "nano-infinity", "--n", 1, "--probe", "token-mse").code == 0
    assert "in all" in varlab("runs", "du").out and "nano-infinity" in varlab("runs", "show", folder).out
    assert varlab("runs", "rm", folder).code == 0 and not folder.exists()
    varlab("runs", "ls", "nowhere").refused("nowhere is no folder")


def test_progress_without_a_terminal_is_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    move = progress.Lines()
    for done in (0, 10, 20, 25, 50):
        move("images", done, 100)
    # 20 images in 5 s: 80 more take 20 s; 50 in 11 s: the other 50 take 11 s
    assert capsys.readouterr().err.splitlines() == [
        "images 20 of 100 done, 20 % of the work, 0:00:20 left",
        "images 50 of 100 done, 50 % of the work, 0:00:11 left",
    ]


def test_all_that_is_missing_is_said_at_once_and_before_memory(
    varlab: Call,
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("varlab.weights.options.refuse_what_cannot_fit", lambda *_, **__: pytest.fail("memory first"))
    monkeypatch.setattr("varlab.models.text.find_spec", lambda _: None)
    files = "infinity_2b_reg.pth and infinity_vae_d32reg.pth are not in"
    varlab("sample", "infinity-2b", "a cat").refused(files, "Flan-T5")
    varlab("report", "01_residual_spectra", "-p", "model=infinity-2b").refused(files, "Flan-T5")
    assert not list((places / "here").iterdir())
