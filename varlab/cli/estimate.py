"""The command that predicts time and memory: on this machine by short runs, for a GPU elsewhere by its data sheet."""

from typing import Annotated

import typer

from varlab.cli.options import Model, Pixels, Precision, Ratio, Strips, as_table, console, require_known, say

app = typer.Typer()


@app.command()
def estimate(
    model: Model,
    methods: Annotated[
        list[str] | None, typer.Argument(help="For a device that is not here: methods to predict beside the dense run.")
    ] = None,
    precision: Precision = None,
    pixels: Pixels = None,
    ratio: Ratio = 1.0,
    device: Annotated[
        str, typer.Option(help="cpu, cuda, or one that is not here: h200, h100, a100-80, 4090, 3090, t4, or 24GiB.")
    ] = "cpu",
    batch: Annotated[int, typer.Option(help="Images at a time.")] = 1,
    probes: Annotated[bool, typer.Option(help="With all probes, as `varlab log` runs them.")] = True,
    strips: Strips = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has it.")] = None,
) -> None:
    """Predict time and peak memory of a run before it: shapes tell the memory, one and two blocks the time.

    Of a long schedule one middle stage is measured and scaled by the operations, so that it takes seconds. For a device
    that is not here the time is that of a roofline: published peak rates, and shares of them that are assumed.
    """
    from varlab.gpus import absent
    from varlab.runs.inputs import at_least

    at_least(1, batch=batch, threads=threads)
    require_known(model)
    if absent(device):
        elsewhere(model, methods or [], device, precision, pixels, ratio, batch, strips)
    else:
        here(model, methods or [], device, precision, pixels, ratio, batch, probes, strips, threads)


def here(
    model: str,
    methods: list[str],
    device: str,
    precision: str | None,
    pixels: str | None,
    ratio: float,
    batch: int,
    probes: bool,
    strips: int | None,
    threads: int | None,
) -> None:
    """By short runs on a device of this machine."""
    import torch

    from varlab.errors import VarlabError
    from varlab.machine import usable
    from varlab.timing.estimate import estimate as measured

    usable(device)
    if methods:
        raise VarlabError(f"methods on this machine are measured by varlab latency: leave {methods[0]} out.")
    if threads is not None:
        torch.set_num_threads(threads)
    made = measured(
        model, precision=precision, pixels=pixels, ratio=ratio, device=device, batch=batch, probes=probes, strips=strips
    )
    console.print(as_table(made.table()))
    say(made.line())


def elsewhere(
    model: str,
    methods: list[str],
    device: str,
    precision: str | None,
    pixels: str | None,
    ratio: float,
    batch: int,
    strips: int | None,
) -> None:
    """By the data sheet of a GPU: whether it fits, and how long it takes at least."""
    from varlab.gpus import described
    from varlab.timing.roofline import fit, predict
    from varlab.weights.precision import AUTO
    from varlab.weights.zoo import load

    gpu, memory = described(device)
    fastest = next((half for half in ("bf16", "fp16") if gpu is not None and half in gpu.rates), "fp32")
    chosen = fastest if precision in (None, AUTO) else precision
    shapes = load(model, init="empty", precision=chosen, pixels=pixels, ratio=ratio)
    fits = fit(model, memory, chosen, pixels, ratio, batch, strips)
    if gpu is None:
        say(fits)
        say("No time is predicted for a bare size of memory.")
        return
    (made,) = predict(shapes, [gpu], methods, batch)
    say(fits)
    console.print(as_table(made.table.reset_index()))
    console.print(as_table(made.stages.loc["none"].reset_index()))
    say(", ".join(str(made.facts[key]) for key in ("model", "weights", "precision", "device", "schedule")))
    say(f"Predicted, not measured; {made.facts['assumptions']}.")
