"""The model half: a script that runs where its network is, here or in the user's own environment."""

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from varlab.errors import VarlabError
from varlab.evaluation.contract import Benchmark, Folder
from varlab.writing import draft_of


def script_of(benchmark: Benchmark) -> str:
    """The text of the script. Raises VarlabError for a benchmark that varlab judges itself."""
    if not benchmark.adapter:
        raise VarlabError(f"{benchmark.title} needs no other network: varlab score judges the images itself.")
    return (Path(__file__).parent / "scripts" / f"{benchmark.adapter}.py").read_text("utf-8")


def absent(benchmark: Benchmark, options: Sequence[str]) -> list[str]:
    """Packages that the script imports and that are not installed."""
    return [name for name in benchmark.requires(options) if importlib.util.find_spec(name) is None]


def make_results(
    benchmark: Benchmark, folder: Folder, prompts: Path | None, out: Path, options: Sequence[str] = ()
) -> None:
    """Run the script in this process; the file, and the JSON beside it, appear only when whole.

    Raises VarlabError with the way to run it elsewhere, where its packages are not installed.
    """
    command = [*benchmark.command(folder, prompts, out), *options]
    if missing := absent(benchmark, options):
        raise VarlabError(
            f"There is no {out}, and {', '.join(missing)} is not installed here to make it. Where it is: "
            f"varlab adapter {benchmark.name} > {benchmark.adapter}.py; python {benchmark.adapter}.py "
            f"{' '.join(command)}"
        )
    draft = draft_of(out)
    try:
        importlib.import_module(f"varlab.evaluation.scripts.{benchmark.adapter}").main(
            [str(draft) if argument == str(out) else argument for argument in command]
        )
        if draft.suffix == ".csv":
            draft.with_suffix(".json").replace(out.with_suffix(".json"))
        draft.replace(out)
    except SystemExit as error:
        raise VarlabError(f"{benchmark.adapter} ended: {error.code}") from error
    finally:
        draft.unlink(missing_ok=True)
        draft.with_suffix(".json").unlink(missing_ok=True)
