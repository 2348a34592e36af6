"""Commands on files: ``parity``, ``show``, ``convert``."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn

from varlab.cli.options import Overwrite, Precision, bars, say
from varlab.markup import in_terminal

app = typer.Typer()


@app.command()
def parity(
    files: Annotated[
        list[Path], typer.Argument(help="Golden files (npz, json, jsonl) of official code, e.g. tests/goldens/*.npz.")
    ],
    every: Annotated[bool, typer.Option("--all", help="Print every array, not only the worst of each kind.")] = False,
) -> None:
    """Compare models and scorers with golden files, array by array. The exit code is 1 when one fails."""
    from varlab.parity import check, load

    reports = []
    for golden in [load(path) for path in files]:  # all are read before the first one runs
        reports.append(check(golden))
        say(reports[-1].render(every))
    passed = sum(item.passed for item in reports)
    say(f"{passed} of {len(reports)} files pass")
    if passed < len(reports):
        raise typer.Exit(1)


@app.command()
def show(
    path: Annotated[
        Path, typer.Argument(help="An image, a JSON or CSV file, samples or weights of varlab, or a folder of them.")
    ],
    json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say how a file was made: prompt, seed, method, settings, weights, versions."""
    from varlab.outputs import as_json, as_lines, read_facts

    facts = read_facts(path)
    for line in [as_json(facts)] if json else map(in_terminal, as_lines(facts)):
        typer.echo(line)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="An official file, shard folder or Hugging Face id.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    name: Annotated[str, typer.Option(help="The model that it belongs to, e.g. infinity-2b.")],
    precision: Precision = None,
    overwrite: Overwrite = False,
) -> None:
    """Turn official weights into safetensors once; they then load faster and without pickle."""
    from varlab.weights.convert import convert as convert_file

    with bars(DownloadColumn(), "read", "write") as report:
        made = convert_file(source, target, name, precision=precision or "bf16", overwrite=overwrite, report=report)
    say(str(made))
