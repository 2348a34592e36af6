"""Commands that measure time and memory: ``bench``, ``latency``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from varlab.cli.options import (
    Model,
    Overwrite,
    Seed,
    as_table,
    check_file,
    check_readable,
    console,
    image_bar,
    load_model,
    say,
    say_alone,
    with_options,
)
from varlab.errors import VarlabError, unknown
from varlab.markup import count

app = typer.Typer()
OF_GPUS = ("gpu", "predicted")


@app.command()
def bench(
    topic: Annotated[
        list[str] | None,
        typer.Argument(
            help="dense, growth, probes, probes-full, sharing, attach, precision (default: all these); gpu; predicted."
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Interleaved rounds; time grows in proportion. Default: 3, on a GPU 10; probes, attach: 5 or more."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Of attach, precision: this one alone; may be repeated. Default: all but the longest of each."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder under which bench/ or gpu/ holds what is found.")] = Path("reports"),
    overwrite: Overwrite = False,
) -> None:
    """Benchmarks, ratios within one run: the engine against an eager reference, growth of cost, cost of probes, of
    `vl.attach` and of each precision, what methods save that are drawn together (a prompt's 4 images a round:
    `--rounds 553` is GenEval's size; stopped, it goes on).

    Tables, figure and one more line of history go to the folder.
    `varlab bench gpu` measures everything that is promised for a GPU in under ten minutes; `varlab bench predicted`
    says by roofline, without one, what it would find on four GPUs.
    """
    import torch

    from varlab.outputs import refuse_existing
    from varlab.runs.inputs import at_least
    from varlab.timing.benchmarks.predicted import FILE
    from varlab.timing.benchmarks.suite import TOPICS, refuse_former
    from varlab.writing import check_writable

    at_least(1, rounds=rounds, threads=threads)
    for name in topic or ():
        if name not in (*TOPICS, *OF_GPUS):
            raise unknown("benchmark", name, [*TOPICS, *OF_GPUS])
    if model is not None:
        _check_models(model, topic or ())
    check_writable(out)
    refuse_former([name for name in topic or TOPICS if name not in OF_GPUS], out / "bench", overwrite)
    if "predicted" in (topic or ()):
        refuse_existing(out / "gpu" / FILE, overwrite=overwrite)
    torch.set_num_threads(threads)
    for name in topic or TOPICS:
        if name in OF_GPUS:
            _gpu(rounds or 10, out / "gpu") if name == "gpu" else _predicted(out / "gpu")
            continue
        _measured(name, model, rounds or 3, threads, out / "bench")


def _check_models(models: Sequence[str], topics: Sequence[str]) -> None:
    from varlab.timing.benchmarks.suite import models_of

    known = models_of(topics[0], long=True) if len(topics) == 1 else []
    if not known:
        raise VarlabError("--model is of varlab bench attach or of varlab bench precision alone.")
    for name in models:
        if name not in known:
            raise unknown("model", name, known)


def _measured(topic: str, models: Sequence[str] | None, rounds: int, threads: int, folder: Path) -> None:
    """A topic, or some of its models one by one: each is written before the next is measured."""
    from varlab.timing.benchmarks.suite import measure, models_of, save

    for of in [{"model": one} for one in models or models_of(topic)] or [{}]:
        with image_bar() as progress:
            made = measure(topic, rounds, progress, **of)
        console.print(as_table(made.table))
        facts = made.facts
        drawn = ", ".join(str(facts[key]) for key in ("model", "weights", "precision") if key in facts)
        say(f"{topic}: {made.verdict}; {drawn}; {facts['device']}, {count(threads, 'thread')}, n={facts['n']}")
        save(made, folder)
        say(f"written to {folder}")


def _gpu(rounds: int, folder: Path) -> None:
    """The GPU benchmark, its table, and where it was written."""
    from varlab.timing.benchmarks.gpu import gpu_bench, save
    from varlab.timing.benchmarks.predicted import figures

    with image_bar() as progress:
        made = gpu_bench(rounds, progress, after_part=lambda found: save(found, folder))
    made.predicted = figures(folder, str(made.facts["device"]))
    console.print(as_table(made.table()))
    say(", ".join(f"{key} {value}" for key, value in made.facts.items()))
    for part, why in made.skipped.items():
        say(f"{part}: {why}")
    say(f"written to {save(made, folder)}")


def _predicted(folder: Path) -> None:
    """The table of the roofline."""
    from varlab.outputs import save_table
    from varlab.timing.benchmarks.gpu import SPEED_UPS
    from varlab.timing.benchmarks.predicted import FILE, predicted

    table = predicted(list(SPEED_UPS))
    console.print(as_table(table.drop(columns="assumptions")))
    say(f"Predicted, not measured; {table.assumptions[0]}.")
    say(f"written to {save_table(folder / FILE, table, digits='%.6g')}")


@app.command()
@with_options
def latency(
    model: Model,
    spec: Annotated[
        list[str] | None, typer.Argument(help="Methods beside the dense run, e.g. truncate:last=1.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Images at a time; may be repeated. Default: 1 and 4.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds after one that warms up.")] = 10,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has it.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the sublayers; needs a compiler.")] = False,
    graphs: Annotated[bool, typer.Option(help="CUDA graphs for the early stages.")] = False,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write all tables here as JSON.")] = None,
    overwrite: Overwrite = False,
    **options: Any,
) -> None:
    """Where the time goes, span by span: the dense run and methods in turning order; memory and limits beside it."""
    import torch

    from varlab.comparison import methods_of
    from varlab.runs.inputs import at_least
    from varlab.scenes.prompt_sets import prompts
    from varlab.timing.latency import latency as measure
    from varlab.timing.latency import save
    from varlab.weights.memory import refuse_batch

    sizes = batch or [1, 4]
    at_least(1, rounds=rounds, threads=threads, batch=min(sizes))
    at_least(0, seed=seed)
    check_file(out, ".json", overwrite)
    check_readable(model, (), {}, methods=map(methods_of, spec or ()), **options)
    _check_execution(model, options["device"], compiled, graphs, spec or ())
    if threads is not None:
        torch.set_num_threads(threads)
    loaded, found = load_model(model, **options), []
    refuse_batch(loaded, max(sizes))
    for size in sizes:
        texts = list(prompts(n=size, model=loaded))
        with image_bar() as progress:
            made = measure(
                loaded, texts, spec or (), rounds=rounds, seed=seed, compile=compiled, graphs=graphs, progress=progress
            )
        found.append(made)
        _show_latency(made)
        if out is not None:  # after each size: a device that vanishes must not take the former ones along
            save(found, out)
            say(f"written to {out}")


def _check_execution(model: str, name: str, compiled: bool, graphs: bool, specs: Sequence[str]) -> None:
    """Refuses what the device, the family or the methods cannot do."""
    from varlab.engine.compiled import require_compilable, require_compiler
    from varlab.engine.graphs import require_gpu
    from varlab.machine import usable
    from varlab.weights.registry import find

    device = usable(name)
    if graphs and specs:
        raise VarlabError("CUDA graphs replay the dense run alone: leave --graphs or the methods out.")
    if graphs:
        require_gpu(device)
    if compiled:
        require_compilable(find(model).family)
        require_compiler(device)


def _show_latency(made: Any) -> None:
    """The tables of one batch size, and what they were measured on."""
    from varlab.timing.latency import launch_bound_share

    facts, dense = made.facts, made.stages[made.stages.method == "none"]
    say((f"batch {facts['batch']}: milliseconds, median ± half the interquartile range, n={facts['n']}", "bold"))
    for table in (made.shown(), dense, made.memory):
        console.print(as_table(table))
    share = launch_bound_share(dense)
    bound = "launch-bound share: only on a GPU" if share != share else f"launch-bound share {share:.2f}"
    say(", ".join(str(facts[key]) for key in ("model", "weights", "precision", "device", "execution")))
    say(f"{count(facts['threads'], 'thread')}; {bound}")
    say_alone({"round": facts["n"]})
