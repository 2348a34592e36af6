"""DPG-Bench from canned answers, as github.com/TencentQQGYLab/ELLA scores it, with each of its faults a switch.

A picture is a grid of samples; the answers of a question are those for its crops in turn. Only ``yes``, exactly,
counts.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from varlab.errors import VarlabError, cause, quoted
from varlab.json_files import read_text

COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip
NEEDED = ("item_id", "proposition_id", "dependency", "tuple", "question_natural_language")
FIX = "Give the official dpg_bench.csv."

Answers = Mapping[str, Mapping[str, Sequence[str]]]  # file -> question -> an answer a crop


@dataclass(frozen=True)
class Rules:
    """The faults of the official code; each is on in ``OFFICIAL`` and off in ``CORRECTED``.

    drop_first_row : the first question of the table is lost, and a prompt whose other questions look it up.
    guess_types : ids and parents are read as numbers where all are; then no picture matches, or the run stops.
    split_blocks : a later block of rows of a prompt replaces the earlier one, in place of joining it.
    row_order : a parent in a later row counts as it was answered, not as it is after its own parents were looked at.
    last_crop : categories are of the last crop alone, before failed parents count.
    literal_names : `entity - part` and `entity -part` are two categories.
    any_file : whatever lies in the folder is taken for a picture, the results file too, and dropped as unreadable.
    scramble : the orders in which several processes go through the categories; scores of differing ones are mixed.
    """

    drop_first_row: bool = True
    guess_types: bool = True
    split_blocks: bool = True
    row_order: bool = True
    last_crop: bool = True
    literal_names: bool = True
    any_file: bool = True
    scramble: tuple[tuple[str, ...], ...] = ()


OFFICIAL = Rules()
CORRECTED = Rules(False, False, False, False, False, False, False)


class Question(NamedTuple):
    text: str
    parents: tuple[int, ...]
    about: str


Block = dict[int, Question]  # a prompt's questions by proposition id, in the order in which ids first came


@dataclass
class Run:
    """What one run gives. Scores of pictures and crops are shares; ``overall`` and categories are of 100.

    ``dropped``: file -> the exception's text; ``lines``: answers in the detail log, those of dropped pictures too.
    ``crash``: the exception that ended the run, before any picture.
    """

    crops: dict[str, list[float]] = field(default_factory=dict)
    l1: dict[str, float] = field(default_factory=dict)
    l2: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    lines: int = 0
    crash: str | None = None

    @property
    def images(self) -> dict[str, float]:
        return {file: sum(crops) / len(crops) for file, crops in self.crops.items()}

    @property
    def overall(self) -> float:
        """NaN where nothing was scored."""
        return 100 * float(np.mean(list(self.images.values()))) if self.crops else float("nan")


def read_csv(source: str | Path, rules: Rules = CORRECTED) -> dict[Any, Block]:
    """The questions of each prompt, from the official nine columns.

    Parameters
    ----------
    source : the file, or its text.

    Raises
    ------
    VarlabError : a table without these columns, and by its line what is no number or no question.
    ValueError, AttributeError : under ``guess_types``, where the official code stops with them.
    """
    name, text = ("the table", source) if isinstance(source, str) else (str(source), read_text(source, FIX))
    options: dict[str, Any] = {} if rules.guess_types else {"dtype": str, "keep_default_na": False}
    try:
        frame = pd.read_csv(io.StringIO(text), **options)
    except (ValueError, pd.errors.ParserError) as error:
        raise VarlabError(f"{name} is no table ({cause(error)}). {FIX}") from error
    if missing := [column for column in NEEDED if column not in frame.columns]:
        raise VarlabError(f"{name} has no column {', '.join(missing)}. {FIX}")
    blocks: dict[Any, Block] = {}
    before: Any = None
    for i, row in enumerate(frame.to_dict("records")):
        if rules.drop_first_row and i == 0:
            continue
        question, number = _question(row, f"{name}, row {i + 1} below the header", rules)
        item = row["item_id"]
        if rules.split_blocks and item != before:
            blocks[item] = {}
        blocks.setdefault(item, {})[number] = question
        before = item
    return blocks


def _question(row: Mapping[Any, Any], place: str, rules: Rules) -> tuple[Question, int]:
    try:
        number = int(row["proposition_id"])
        parents = tuple(int(part.strip()) for part in row["dependency"].split(","))
    except ValueError as error:
        if rules.guess_types:
            raise
        raise VarlabError(f"{place}: proposition_id and dependency are whole numbers ({cause(error)}).") from None
    text, about = row["question_natural_language"], row["tuple"]
    if not rules.guess_types and not (str(text).strip() and str(about).strip() and str(row["item_id"]).strip()):
        raise VarlabError(f"{place}: item_id, tuple and question_natural_language must not be empty.")
    return Question(text, parents, about), number


def key_of(file: str) -> str:
    """The prompt that a picture belongs to: its name up to the first dot."""
    return Path(file).name.split(".")[0]


def score(
    table: str | Path, answers: Answers, crops: int, rules: Rules = CORRECTED, files: Sequence[str] | None = None
) -> Run:
    """DPG of the pictures whose answers are given.

    Parameters
    ----------
    table : the official dpg_bench.csv, or its text.
    crops : samples a picture; the official script asks 4, its Python default is 1.
    files : what lies in the folder, in its order; by default the pictures with answers.

    Raises
    ------
    VarlabError : a faulty table, a picture or a question without its answers.
    """
    try:
        blocks = read_csv(table, rules)
    except (ValueError, AttributeError, TypeError) as error:
        return Run(crash=f"{type(error).__name__}: {error}")
    run = Run()
    noted: dict[str, dict[str, list[float]]] = {}  # file -> category -> scores
    for file in answers if files is None else files:
        if file not in answers:
            if rules.any_file:
                run.dropped[file] = f"cannot identify image file {quoted(file)}"
            continue
        block = blocks.get(key_of(file))
        if block is None:
            run.dropped[file] = "'NoneType' object is not subscriptable"
            continue
        try:
            scored = list(_crops(file, block, answers[file], crops, rules, run))
        except KeyError as error:  # a parent that is not in the block
            run.dropped[file] = str(error)
            continue
        run.crops[file] = [sum(after.values()) / len(after) for _, after in scored]
        noted[file] = {}
        try:
            for number, question in block.items():
                values = [scored[-1][0][number]] if rules.last_crop else [after[number] for _, after in scored]
                noted[file].setdefault(category(question.about, rules.literal_names), []).extend(values)
        except AttributeError as error:  # no tuple, by guess_types: the picture counts, its further categories do not
            run.dropped[file] = str(error)
    run.l1, run.l2 = _tables(noted, list(answers if files is None else files), rules)
    return run


def _crops(
    file: str, block: Block, answers: Mapping[str, Sequence[str]], crops: int, rules: Rules, run: Run
) -> Iterator[tuple[dict[int, float], dict[int, float]]]:
    """The scores of each crop by question, as answered and after failed parents count."""
    for question in block.values():
        if len(answers.get(question.text, ())) < crops:
            raise VarlabError(f"{file} has no answers for all {crops} crops to {quoted(question.text)}.")
    for crop in range(crops):
        answered = {number: float(answers[q.text][crop] == "yes") for number, q in block.items()}
        run.lines += len(answered)
        yield answered, zeroed(block, answered, rules)


def zeroed(block: Block, answered: Mapping[int, float], rules: Rules) -> dict[int, float]:
    """Scores after the dependency pass: a question with a failed parent fails.

    Under ``row_order`` parents are asked as they stand when the question's row is reached, and looking stops at the
    first failed one. Otherwise a failure runs through whatever the order; a parent that depends on its own child
    counts as answered. Raises KeyError for a parent that is not in the block and is looked at.
    """
    after = dict(answered)
    if rules.row_order:
        for number, question in block.items():
            if any(parent != 0 and after[parent] == 0 for parent in question.parents):
                after[number] = 0.0
        return after
    if lost := {p for q in block.values() for p in q.parents} - block.keys() - {0}:
        raise KeyError(min(lost))
    for _ in block:  # a chain is at most as long as the block
        after = {
            number: 0.0 if any(p != 0 and after[p] == 0 for p in question.parents) else after[number]
            for number, question in block.items()
        }
    return after


def category(about: str, literal: bool) -> str:
    """The L2 category: the tuple's text before its bracket; not ``literal``: with one blank around its dash."""
    name = about.split("(")[0].strip()
    if literal:
        return name
    broad, _, detailed = (part.strip() for part in name.partition("-"))
    return f"{broad} - {detailed}" if detailed else broad


def _tables(
    noted: Mapping[str, Mapping[str, list[float]]], files: Sequence[str], rules: Rules
) -> tuple[dict[str, float], dict[str, float]]:
    """L1 and L2: means over all questions of all pictures, of 100."""
    l2: dict[str, list[float]] = {}
    if rules.scramble:
        l2 = _scrambled([noted.get(file, {}) for file in files], rules.scramble)
    else:
        for categories in noted.values():
            for name, values in categories.items():
                l2.setdefault(name, []).extend(values)
    l1: dict[str, list[float]] = {}
    for name, values in l2.items():
        l1.setdefault(name.split("-")[0].strip(), []).extend(values)
    return _means(l1), _means(l2)


def _means(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: 100 * float(np.mean(v)) if len(v) else float("nan") for name, v in sorted(values.items())}


def process_orders(
    table: str | Path, answers: Answers, crops: int, files: Sequence[str], seeds: Sequence[int]
) -> tuple[tuple[str, ...], ...]:
    """What ``scramble`` is in processes with these string-hash seeds: the order in which each walks a set of names."""
    blocks, scored = read_csv(table, OFFICIAL), score(table, answers, crops, OFFICIAL, files).crops
    each = -(-len(files) // len(seeds))
    names: list[str] = []
    for first in range(0, len(files), each):
        mine = [blocks[key_of(file)] for file in files[first : first + each] if file in scored]
        names += dict.fromkeys(category(q.about, literal=True) for block in mine for q in block.values())
    walk = "import json, sys; print(json.dumps(list(set(json.loads(sys.argv[1])))))"
    return tuple(
        tuple(
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", walk, json.dumps(names)],
                    env=os.environ | {"PYTHONHASHSEED": str(seed)}, capture_output=True, check=True,
                ).stdout
            )
        )
        for seed in seeds
    )  # fmt: skip


def _scrambled(
    pictures: Sequence[Mapping[str, list[float]]], orders: Sequence[Sequence[str]]
) -> dict[str, list[float]]:
    """Several processes, each with an equal share of the files, gather category by category in their own order."""
    each = -(-len(pictures) // len(orders))
    gathered: dict[str, list[float]] = {}
    for turn, name in enumerate(orders[0]):
        gathered[name] = []
        for process, order in enumerate(orders):
            own = pictures[process * each : (process + 1) * each]
            gathered[name] += [value for categories in own for value in categories.get(order[turn], ())]
    return gathered
