"""Ablations from the stored table of a study: one axis at a time, as the papers print them."""

from itertools import product
from typing import Any

import pandas as pd

from varlab.analysis.settings_table import DENSE, SettingsTable
from varlab.errors import VarlabError, unknown
from varlab.measures.statistics.intervals import paired_difference

CENTRE = 2  # of the matched tau: about .27 of the tokens, the paper's tau .6
AXES = ("tau", "matched tau", "alpha", "last", "block", "depth")


def axis_specs(table: SettingsTable, axis: str) -> dict[str, str]:
    """Value of the axis -> spec. The other options are those of the usual setting.

    Raises
    ------
    VarlabError: the study has no such axis.
    """
    axes: dict[str, list[Any]] = table.facts["axes"]
    if axis not in axes:
        raise unknown("axis of the study", axis, axes)
    centre = f"{float(axes['matched tau'][CENTRE]):g}" if "matched tau" in axes else ""
    forms = {
        "tau": "sparsevar:tau={},alpha=4,last=3",
        "matched tau": "sparsevar:tau={},alpha=4,last=3",
        "alpha": f"sparsevar:tau={centre},alpha={{}},last=3",
        "last": f"sparsevar:tau={centre},alpha=4,last={{}}",
        "block": "sparsevar:keep=0.27,last=3,block={}",
        "depth": "freqexit:exits={}",
    }
    return {_shown(axis, value): forms[axis].format(_written(value)) for value in axes[axis]}


def _written(value: Any) -> str:
    return "none" if value is None else f"{value:g}"


def _shown(axis: str, value: Any) -> str:
    """Blocks count from 1 in what people read."""
    return str(value + 1) if axis == "block" else _written(value)


def axis_table(table: SettingsTable, axis: str) -> pd.DataFrame:
    """One row a value of the axis that was drawn: spec, n, work, computed share, SSIM and score with intervals.

    Raises
    ------
    VarlabError: none of its values is stored.
    """
    known = {value: spec for value, spec in axis_specs(table, axis).items() if spec in table.works.index}
    if not known:
        raise VarlabError(f"The study {table.facts['study']} of {table.facts['model']} holds no value of {axis} yet.")
    rows = table.table(*known.values()).reset_index()
    rows.insert(0, axis, list(known))
    return rows


def product_table(table: SettingsTable) -> pd.DataFrame:
    """One row a tau and alpha that were drawn together: the columns of ``axis_table``. First the taus that keep the
    published shares, then the poster's."""
    axes = table.facts["axes"]
    cells = {
        f"sparsevar:tau={tau:g},alpha={_written(alpha)},last=3": (f"{tau:g}", _written(alpha))
        for tau in dict.fromkeys([*axes["matched tau"], *axes["tau"]])
        for alpha in axes["alpha"]
    }
    known = [spec for spec in cells if spec in table.works.index]
    pairs = pd.DataFrame([cells[spec] for spec in known], columns=["tau", "alpha"])
    return pd.concat([pairs, table.table(*known).reset_index()], axis=1)


def blocks_table(table: SettingsTable) -> pd.DataFrame:
    """One row a number of pruned stages and scoring block (from 1) that were drawn: work, SSIM, and how much higher it
    is than that of random tokens at the same keep and stages, with the paired 95 % interval over prompts."""
    rows, axes = [], table.facts["axes"]
    for last, block in product(axes.get("last", ()), axes.get("block", ())):
        spec, random = f"sparsevar:keep=0.27,last={last},block={block}", f"random-tokens:keep=0.27,last={last}"
        if {spec, random} <= set(table.works.index):
            ours, blind = table.values("ssim", spec, random).to_numpy(float)
            gain = paired_difference(ours, blind)
            rows.append((last, block + 1, float(table.works[spec]), table.n, float(ours.mean()), *map(float, gain)))
    return pd.DataFrame(rows, columns=["last", "block", "work", "n", "ssim", "gain", "gain_low", "gain_high"])


def strategies_table(table: SettingsTable) -> pd.DataFrame:
    """Fixed strategies of SkipVAR (stages dropped, stages without the unconditional row) and its targets.

    With the mean SSIM on the half of the prompts with most late detail, and on the other, by its own HF_Diff.
    """
    deciding = [spec for spec in table.specs if spec.startswith("skipvar")]
    plain = [spec for spec in table.specs if spec == DENSE or spec.startswith(("truncate", "cfg-off"))]
    halves = _halves(table, deciding)
    rows = []
    for spec in [*plain, *deciding]:
        row: dict[str, Any] = {"strategy": spec} | table.table(spec).iloc[0][["n", "work", "ssim", "ssim_low",
                                                                             "ssim_high"]].to_dict()  # fmt: skip
        ssim = table.values("ssim", spec).to_numpy()[0]
        rows.append(row | {f"ssim {name}": float(ssim[half].mean()) for name, half in halves.items()})
    return pd.DataFrame(rows)


def _halves(table: SettingsTable, deciding: list[str]) -> dict[str, Any]:
    if not deciding:
        return {}
    order = table.values("hf_diff", deciding[0]).to_numpy()[0].argsort(kind="stable")[::-1]
    cut = len(order) // 2
    return {"sensitive": order[:cut], "robust": order[cut:]}
