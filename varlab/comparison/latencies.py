"""Latencies that other code measured, joined to a table of folders of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from varlab.errors import VarlabError, cause, quoted
from varlab.measures.statistics import bootstrap_interval, independent_ratio

KEYS = ("turn", "name", "image", "prompt")  # columns that pair the timings of two methods


def read_latencies(path: Path, names: list[str], optional: Sequence[str] = ()) -> pd.DataFrame:
    """Columns ``method``, ``seconds`` and, where there is one, ``pair``: what is timed together.

    The file has one row a timing: ``method`` (or ``folder``), ``seconds`` an image (or ``ms``), and perhaps ``turn``,
    ``name``, ``image`` or ``prompt``, the same for the timings of all methods that belong together. It names each of
    ``names``, and perhaps the ``optional`` ones.

    Raises
    ------
    VarlabError
        It cannot be read; a column or a folder is missing, or named in it and not compared; a time is no positive
        number, with its line.
    """
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise VarlabError(f"{path} cannot be read as CSV ({cause(error)}).") from error
    method = next((name for name in ("method", "folder") if name in table), None)
    unit = next((name for name in ("seconds", "ms") if name in table), None)
    if method is None or unit is None:
        raise VarlabError(f"{path} needs the columns method (or folder) and seconds (or ms), not {', '.join(table)}.")
    methods = [str(name).rstrip("/") for name in table[method]]
    if wrong := sorted((set(methods) - set(optional)) ^ set(names)):
        raise VarlabError(f"{path} and the folders do not name the same ones: {', '.join(wrong)}. Names: {names}.")
    seconds = pd.to_numeric(table[unit], errors="coerce") / (1000 if unit == "ms" else 1)
    if (bad := ~(np.isfinite(seconds) & (seconds > 0))).any():
        line = int(np.flatnonzero(bad)[0])
        raise VarlabError(f"{path}, line {line + 2}: {quoted(table[unit].iloc[line])} is no time in {unit}.")
    found = pd.DataFrame({"method": methods, "seconds": seconds})
    pairing = next((name for name in KEYS if name in table), None)
    if pairing is not None:
        found["pair"] = table[pairing].astype(str)
        if found.duplicated(["method", "pair"]).any():
            raise VarlabError(f"{path} times a {pairing} twice for one method. Number the timings in a column turn.")
    return found


def with_latencies(table: pd.DataFrame, timings: pd.DataFrame, dense: str, seed: int) -> pd.DataFrame:
    """The table with median seconds, quartiles, the number of timings, and the speed-up over the dense run.

    Paired timings give the median ratio, others the ratio of medians, each with a 95 % bootstrap interval. Without
    timings of the dense run there is no speed-up.
    """
    own = {str(name): part for name, part in timings.groupby("method")}
    rows = []
    for name in table["method"]:
        q25, median, q75 = own[name]["seconds"].quantile([0.25, 0.5, 0.75])
        row = {"seconds": median, "seconds_q25": q25, "seconds_q75": q75, "timings": len(own[name])}
        if dense not in own:
            rows.append(row | dict.fromkeys(("speedup", "speedup_low", "speedup_high"), np.nan))
            continue
        pairs = own[dense].merge(own[name], on="pair") if "pair" in timings else pd.DataFrame()
        if len(pairs) and len(pairs) == len(own[dense]) == len(own[name]):
            found = bootstrap_interval(pairs["seconds_x"] / pairs["seconds_y"], np.nanmedian, seed=seed)
        else:
            found = independent_ratio(own[dense]["seconds"], own[name]["seconds"], seed=seed)
        rows.append(row | {"speedup": found.estimate, "speedup_low": found.low, "speedup_high": found.high})
    return table.join(pd.DataFrame(rows, index=table.index))
