"""The command line: thin, every command one call into the package."""

import sys

import typer
from rich.console import Console

from varlab.cli import bench, files, methods, run, train
from varlab.cli.options import Stopped
from varlab.errors import VarlabError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Analysis workbench for next-scale visual autoregressive image models (Infinity, HART and VAR).",
)
for room in (run, methods, train, files, bench):
    app.add_typer(room.app)


def main() -> None:
    """Entry point: mistakes become one line and exit code 2, Ctrl-C one line and 130, never a traceback."""
    try:
        app()
    except VarlabError as error:
        Console(stderr=True, soft_wrap=True).print(f"varlab: {error}", markup=False, highlight=False, style="red")
        sys.exit(2)
    except RuntimeError as error:  # the device itself: out of memory, or gone
        if not any(word in str(error) for word in ("CUDA", "CUDNN", "cuDNN", "NVML")):
            raise
        line = str(error).splitlines()[0]
        advice = "Runs with a folder go on with the same command; if memory is short, take a smaller batch."
        Console(stderr=True, soft_wrap=True).print(
            f"varlab: the GPU failed ({line}). {advice}", markup=False, style="red"
        )
        sys.exit(2)
    except Stopped as stopped:
        Console(stderr=True).print(f"varlab: {stopped}")
        sys.exit(130)
    except SystemExit as end:  # what typer makes of Ctrl-C anywhere else
        if end.code == 130:
            Console(stderr=True).print("varlab: stopped")
        raise
