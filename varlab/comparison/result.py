"""What a comparison gives: tables with intervals, pictures, ledgers, decisions, provenance."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image

from varlab.accelerators import DENSE
from varlab.analysis.comparisons import SavedComparison
from varlab.analysis.frontier import Frontier
from varlab.comparison.image_result import ImageComparison
from varlab.comparison.previews import Stages
from varlab.comparison.turns import BEGUN, TURNS
from varlab.engine.ledger import Ledger
from varlab.errors import VarlabError
from varlab.json_files import read_json
from varlab.markup import count
from varlab.outputs import image_facts, plain, read_facts, refuse_existing, save_image, save_json, save_table
from varlab.runs.folders import is_passing, open_log, write_log
from varlab.runs.manifest import MANIFEST, faults, write_manifest

RECORD = "comparison.json"
FILES = (RECORD, "comparison.csv", "prompts.csv", "timings.csv", "frontier.csv", "frontier.json")
TEXT = ("method", "prompt", "category")  # columns
FOLDERS = ("images", "previews", "decisions", "foreign")


@dataclass(frozen=True)
class Comparison:
    """What ``compare`` found.

    ``table``: one row a method. ``images``: method -> pictures in prompt order. ``prompts``: one row a prompt and
    method. ``timings``: one row a batch and method. ``ledgers`` by method, and ``logs`` of those that tell what they
    decided; ``facts`` are the provenance, the same for all rows, and ``notes`` on what a reader of the table must know;
    ``frontier`` is what the methods are judged by; ``stages``, where they were asked for, the pictures after each stage
    by method and prompt; ``foreign``, where folders were given, pictures of other code beside ours.
    All rows come from one call and share its settings: tables made apart are not to be joined.
    """

    table: pd.DataFrame
    prompts: pd.DataFrame
    timings: pd.DataFrame
    images: dict[str, list[Image.Image]]
    ledgers: dict[str, Ledger]
    logs: dict[str, xr.DataTree]
    facts: dict[str, Any]
    frontier: Frontier | None = None
    stages: dict[str, list[Stages]] = field(default_factory=dict)
    foreign: ImageComparison | None = None

    def __repr__(self) -> str:
        shown = self._shown().to_string(index=False).replace("\n", "\n  ")
        return f"{self._title()}\n  {shown}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self._title())}</p>{self._shown().to_html(index=False)}"

    def _title(self) -> str:
        facts, n = self.facts, int(self.table["n"].max())
        what = f"{count(len(self.table), 'method')} on {count(n, 'prompt')}"
        return f"{what}: {facts.get('model')}, seed {facts.get('seed')}, weights: {facts.get('weights')}"

    def _shown(self) -> pd.DataFrame:
        return self.speed()[["method", "speed-up", "work"]].merge(self.fidelity()[["method", "SSIM"]], on="method")

    def only(self, *specs: str) -> "Comparison":
        """The dense row and those of ``specs``, of the same run: what must not share a table is shown apart."""
        names = [DENSE, *(name for name in self.images if name in specs and name != DENSE)]
        prompts, timings = (frame[frame.method.isin(names)] for frame in (self.prompts, self.timings))
        images, ledgers = ({name: self.images[name] for name in names}, {name: self.ledgers[name] for name in names})
        logs = {name: self.logs[name] for name in names if name in self.logs}
        stages = {name: self.stages[name] for name in names if name in self.stages}
        table = self.table.loc[names]
        return Comparison(table, prompts, timings, images, ledgers, logs, self.facts, self.frontier, stages)

    def speed(self) -> pd.DataFrame:
        """The half of the table on time and work, as people read it. batches: timed runs, the n of its intervals;
        fewer than six give none."""
        table = self.table.reset_index()
        quartiles = zip(table.seconds, table.seconds_q25, table.seconds_q75, strict=True)
        shown = table[["method", "timings"]].rename(columns={"timings": "batches"})
        shown["ms/image"] = [
            f"{1000 * s:.0f}{'' if np.isnan(a) else f' ({1000 * a:.0f} to {1000 * b:.0f})'}" for s, a, b in quartiles
        ]
        shown["speed-up"] = _cells(table, "speedup", "{:.2f}")
        shown["work"] = table.work_ratio.map("{:.3f}".format)
        shown["efficiency"] = table.efficiency.map("{:.2f}".format).replace("nan", "-")
        shown["engaged"] = np.where(table.engaged, "yes", "no")
        shown["MiB"] = table.peak_mib.map("{:.0f}".format)
        return shown

    def fidelity(self) -> pd.DataFrame:
        """The half on the images, with 95 % intervals over prompts."""
        table = self.table.reset_index()
        shown = table[["method", "n"]].copy()
        shown["PSNR (dB)"] = _cells(table, "psnr", "{:.1f}")
        shown["SSIM"] = _cells(table, "ssim", "{:.3f}")
        shown["SSIM of detail"] = _cells(table, "high_frequency_ssim", "{:.3f}")
        if "lpips" in table:
            shown["LPIPS"] = _cells(table, "lpips", "{:.3f}")
        if "score" in table:
            shown["score"] = table.score.map("{:.3f}".format)
            shown["minus dense"] = _cells(table, "score_delta", "{:+.3f}")
        return shown

    def save(self, folder: Path | str, overwrite: bool = False) -> Path:
        """Write ``comparison.csv`` and ``.json``, ``frontier.csv`` and ``.json``, ``prompts.csv``, ``timings.csv``,
        ``images/<row>/<prompt>.png``, ``previews/<row>/<prompt>-<stage>.png`` where stages were kept, and
        ``decisions/<row>``, each a log that ``open_log`` and the figures read, and ``foreign/`` as ``compare_images``
        saves it; last ``complete.json``, which lists them. Rows count from 0, the dense run.
        Raises VarlabError for a folder that holds another comparison, unless ``overwrite``, or something else."""
        place = Path(folder)
        if not ((record := place / RECORD).is_file() and read_facts(record) == plain(self.facts)):
            refuse_existing(place, overwrite=overwrite)
        refuse_others(place)
        return self.write(place)

    def write(self, place: Path) -> Path:
        """As ``save``, in place of any comparison that is there."""
        (place / MANIFEST).unlink(missing_ok=True)
        for name in (*FOLDERS, "viewer"):  # of another comparison there may be more
            shutil.rmtree(place / name, ignore_errors=True)
        for name in (*FILES, "viewer.html"):
            (place / name).unlink(missing_ok=True)
        save_table(place / "comparison.csv", self.table, index=True)
        save_table(place / "prompts.csv", self.prompts)
        save_table(place / "timings.csv", self.timings)
        rows = json.loads(self.table.reset_index().to_json(orient="records"))
        ledgers = {name: asdict(ledger) for name, ledger in self.ledgers.items()}
        save_json(place / RECORD, {"facts": self.facts, "rows": rows, "ledgers": ledgers})
        if self.frontier is not None:
            save_table(place / "frontier.csv", self.frontier.prompts)
            save_json(place / "frontier.json", self.frontier.facts)
        for row, name in enumerate(self.images):
            if name in self.logs:
                write_log(place / "decisions" / f"{row:02d}", self.logs[name])
        if self.foreign is not None:
            self.foreign.save(place / "foreign", overwrite=True)
        self.save_pictures(place / "images")
        self._save_stages(place / "previews")
        write_manifest(place, [*FILES, *FOLDERS])
        return place

    def _save_stages(self, place: Path) -> None:
        for row, name in enumerate(self.images):
            about = self._about(name)
            for i, stages in enumerate(self.stages.get(name, ())):
                for k, picture in stages.items():
                    path = place / f"{row:02d}" / f"{i:04d}-{k:02d}.png"
                    save_image(path, picture, image_facts(about, i) | {"stage": k}, overwrite=True)

    @classmethod
    def read(cls, folder: Path | str) -> "Comparison":
        """What ``save`` wrote, but for pictures of other code.

        Raises VarlabError for a folder without a comparison, one of an older version, and one that is damaged.
        """
        place = Path(folder)
        if wrong := faults(place):
            raise VarlabError(f"{place} is damaged ({'; '.join(wrong[:3])}). Make it again with --overwrite.")
        saved = SavedComparison(place)
        held = read_json(place / RECORD, "Make the comparison again.").get("ledgers")
        if held is None:
            raise VarlabError(f"{place} holds a comparison of an older version, without its ledgers. Make it again.")
        prompts, timings = (_read(place / name) for name in ("prompts.csv", "timings.csv"))
        table = _read(place / "comparison.csv").set_index("method")
        decided = {name: place / "decisions" / f"{row:02d}" for row, name in enumerate(saved.names)}
        logs = {name: open_log(path) for name, path in decided.items() if path.is_dir()}
        ledgers = {name: Ledger.read(each) for name, each in held.items()}
        return cls(
            table,
            prompts,
            timings,
            dict(saved.images),
            ledgers,
            logs,
            saved.facts,
            Frontier.read(place),
            saved.stages,
        )

    def save_pictures(self, place: Path) -> None:
        """Each row's in a folder of its number."""
        for row, (name, pictures) in enumerate(self.images.items()):
            for i, picture in enumerate(pictures):
                facts = image_facts(self._about(name), i)
                save_image(place / f"{row:02d}" / f"{i:04d}.png", picture, facts, overwrite=True)

    def _about(self, name: str) -> dict[str, Any]:
        own = {field: value for field, value in self.facts.items() if field != "compared"}
        return own | {"accelerators": name.split("+")}


def refuse_others(place: Path) -> None:
    """Refuse, even where a comparison may be replaced, to replace folders of something else.

    Raises VarlabError, which names them.
    """
    if (place / RECORD).is_file() or (place / TURNS / BEGUN).is_file():
        return
    turns = any(not is_passing(item) for item in (place / TURNS).glob("*"))
    lost = [name for name in (*FOLDERS, "viewer", MANIFEST) if (place / name).exists()] + [TURNS] * turns
    if lost:
        raise VarlabError(
            f"{place} holds no comparison, and one would replace its {', '.join(lost)}. Give another place."
        )


def _read(path: Path) -> pd.DataFrame:
    """A table as it was saved, to the bit: pandas' own parser of numbers rounds."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return table.assign(**{name: [*map(_value, table[name])] for name in table if name not in TEXT})


def _value(text: str) -> bool | int | float:
    if text in ("True", "False"):
        return text == "True"
    return int(text) if text.removeprefix("-").isdecimal() else float(text or "nan")


def _cells(table: pd.DataFrame, name: str, form: str) -> list[str]:
    """Figures with their intervals, where there are any and these have a width."""
    columns = zip(table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True)
    return [
        form.format(value)
        if low == high or np.isnan(low)
        else f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"
        for value, low, high in columns
    ]
