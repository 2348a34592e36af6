"""Where every error of a command ends: one line with its cause and an exit code; the traceback only on request."""

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress

from rich.console import Console
from rich.text import Text

from varlab.cli.options import Stopped
from varlab.errors import VarlabError
from varlab.markup import in_terminal

DEBUG = "--debug"
GPU = ("CUDA", "CUDNN", "cuDNN", "NVML")
GOES_ON = "Commands with a folder go on from there when they are given again"


def guarded(app: Callable[[list[str]], object]) -> None:
    """Run the command line. Exit code 2 for what the caller can mend, 1 for other errors, 130 for Ctrl-C."""
    arguments, debug = _arguments(sys.argv[1:])
    os.environ["MPLBACKEND"] = "agg"  # figures go to files; a window system that is set up badly is no concern here
    with suppress(AttributeError):  # a terminal that knows only ASCII still gets every line
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.formatwarning = _note  # type: ignore[assignment]
    try:
        app(arguments)
    except SystemExit as end:  # what typer makes of Ctrl-C
        if end.code == 130:
            _print("stopped")
        raise
    except BrokenPipeError:  # `varlab models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Stopped as stopped:
        _print(str(stopped))
        sys.exit(130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        line, code = explain(error)
        _print(line, "red")
        sys.exit(code)


def _arguments(given: list[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which may stand anywhere before a bare ``--``."""
    end = given.index("--") if "--" in given else len(given)
    return [item for item in given[:end] if item != DEBUG] + given[end:], DEBUG in given[:end]


def explain(error: Exception) -> tuple[str, int]:
    """One line on an error, and the exit code."""
    if isinstance(error, VarlabError):
        return str(error), 2
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{_at(error)}. Free some; {GOES_ON}.", 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{_at(error)}.", 2
    if isinstance(error, MemoryError):
        return "memory ran out. Take a smaller batch, fewer prompts, or --precision bf16.", 2
    if isinstance(error, RuntimeError) and any(word in str(error) for word in GPU):
        return f"the GPU failed ({_first(error)}). {GOES_ON}; if memory is short, take a smaller batch.", 2
    if isinstance(error, ImportError):
        return f"a package is missing or broken ({_first(error)}). Install it again: pip install -e .", 2
    return f"{type(error).__name__}: {_first(error)} (unexpected; `varlab {DEBUG} ...` shows where it happened)", 1


def _at(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f": {' and '.join(names)}" if names else ""


def _first(error: Exception) -> str:
    """The line of a message that holds the cause: the first, or, where a worker's traceback is passed on, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1 if "Traceback (most recent call last):" in lines else 0] if lines else "no message"


def _note(message: Warning | str, category: type[Warning], *place: object) -> str:
    """A warning meant for the caller as one line; one meant for programmers as Python writes it."""
    if category is UserWarning:
        return in_terminal(f"varlab: note: {message}\n")
    return f"{category.__name__}: {message}\n"


def _print(line: str, style: str | None = None) -> None:
    Console(stderr=True, soft_wrap=True).print(Text(in_terminal(f"varlab: {line}")), style=style)
