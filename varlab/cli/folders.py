"""Commands on run folders: ``runs ls``, ``show``, ``verify``, ``repair``, ``du``, ``rm``."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from varlab.cli.options import NoWait, say
from varlab.errors import VarlabError
from varlab.markup import count

app = typer.Typer(no_args_is_help=True, help="List, check, mend and remove folders of runs, comparisons, sweeps.")
Folder = Annotated[Path, typer.Argument(help="A run folder.")]
Root = Annotated[Path | None, typer.Argument(help="A folder of run folders, or one; default: runs.")]


def _found(root: Path | None) -> list[Path]:
    from varlab.runs import runs_folder
    from varlab.runs.states import runs_in

    place = root or runs_folder()
    found = runs_in(place)
    if not found and not place.is_dir():
        raise VarlabError(f"{place} is no folder. Runs are made by varlab log and varlab report.")
    return found


@app.command()
def ls(root: Root = None) -> None:
    """List runs of every kind: log, comparison, benchmark, sweep, tuning, frontier; their state, size and age.

    A state is running, partial, complete or damaged.
    """
    from varlab.runs.states import table

    found = _found(root)
    if found:
        say(table(found).to_string(index=False))
    say(count(len(found), "run"))


@app.command()
def show(folder: Folder) -> None:
    """Show what a run was: its record, state and size."""
    from varlab.runs.states import shown

    for name, value in shown(folder).items():
        say((f"{name}: ", "bold"), value)


@app.command()
def verify(folders: Annotated[list[Path], typer.Argument(help="Run folders.")]) -> None:
    """Read runs as a whole and compare them with their manifests. The exit code is 1 when one is damaged."""
    from varlab.runs.states import verify as check

    states = {folder: check(folder) for folder in folders}
    for folder, state in states.items():
        say(f"{folder}: {state}")
        if state.word == "damaged":
            say(f"`varlab runs repair {quote(str(folder))}` mends what it can; the command that made it does the rest")
    if any(state.word == "damaged" for state in states.values()):
        raise typer.Exit(1)


@app.command()
def repair(folder: Folder, no_wait: NoWait = False) -> None:
    """Mend what can be mended without sampling; the command that made the run then makes the rest again."""
    from varlab.runs.states import repair as mend
    from varlab.runs.states import verify as check

    for line in mend(folder, wait=not no_wait) or ["nothing to mend"]:
        say(line)
    say(f"{folder}: {check(folder)}")


@app.command()
def du(root: Root = None) -> None:
    """Disk that runs take, the largest first."""
    from varlab.runs.states import size

    sizes = {folder: size(folder) for folder in _found(root)}
    for folder, held in sorted(sizes.items(), key=lambda item: -item[1]):
        say(f"{held / 1e6:10.1f} MB  {folder}")
    say(f"{sum(sizes.values()) / 1e6:10.1f} MB  in all")


@app.command()
def rm(folders: Annotated[list[Path], typer.Argument(help="Run folders.")]) -> None:
    """Remove runs: only folders that hold a run and nothing else, and that no process writes in."""
    from varlab.runs.states import remove

    for folder in folders:
        say(f"removed {folder}, {remove(folder) / 1e6:.1f} MB")
