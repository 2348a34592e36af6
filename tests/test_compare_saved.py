"""Saved scores of any origin are read, paired and told apart; what is unlike or incomplete is refused by name."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import varlab as vl
from tests.cli_calls import Call, places, varlab  # noqa: F401
from varlab.comparison.likeness import differing, refuse_unlike, settings_diff
from varlab.comparison.saved import read_scores
from varlab.errors import VarlabError
from varlab.measures.statistics import mcnemar

MADE = {"model": "m", "weights": "w", "seed": 0, "settings": {"cfg": 3.0, "tau": [1, 1]}, "git": "a", "date": "x"}


def comparison(folder: Path, shift: float = 0.0, n: int = 12, **changed: object) -> Path:
    """What ``varlab compare --out`` leaves of two methods."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for method in ("none", "fast", "slow"):
        for i in range(n):
            close = 1.0 if method == "none" else 0.9 + 0.02 * rng.random() + shift * (method == "fast")
            psnr = np.inf if method == "none" else 30 + i
            rows.append({"method": method, "prompt": f"p{i}", "category": "c", "psnr": psnr, "ssim": close})
    pd.DataFrame(rows).to_csv(folder / "prompts.csv", index=False)
    (folder / "comparison.json").write_text(json.dumps({"facts": MADE | changed, "rows": []}))
    return folder


def geneval(path: Path, wrong: set[int] = frozenset(), n: int = 20, **changed: object) -> Path:  # type: ignore[assignment]
    lines = []
    for i in range(n):
        for k in range(4):
            row = {"filename": f"out/{i:05d}/samples/{k:04d}.png", "tag": "colors" if i % 2 else "counting",
                   "prompt": f"p{i}", "correct": 4 * i + k not in wrong, "reason": "", "metadata": "{}"}  # fmt: skip
            lines.append(json.dumps(row | changed))
    path.write_text("\n".join(lines) + "\n")
    return path


# Pairing


def test_two_runs_are_paired_method_by_method(tmp_path: Path) -> None:
    a, b = comparison(tmp_path / "a", shift=0.05), comparison(tmp_path / "b")
    table = vl.compare_saved(a, b, margin={"ssim": 0.01}).table.set_index(["measure", "a"])
    assert len(table) == 4  # the dense run has no fidelity to itself
    fast, slow = (table.loc["ssim", f"{name} ({a})"] for name in ("fast", "slow"))
    assert fast.difference == pytest.approx(0.05) and fast.outcome == "a higher" and fast.higher == fast.n == 12
    assert slow.difference == 0 and slow.outcome == "no difference" and slow.p == 1
    assert np.isnan(table.loc["psnr", f"fast ({a})"].margin)


def test_two_methods_of_one_run(tmp_path: Path) -> None:
    a = comparison(tmp_path / "a", shift=0.05)
    table = vl.compare_saved(a, a, first="fast", second="slow", measures=["ssim"]).table
    assert table.a.tolist() == ["fast"] and table.b.tolist() == ["slow"]
    rows = pd.read_csv(a / "prompts.csv").set_index("method").ssim
    assert table.difference[0] == pytest.approx(float((rows["fast"].to_numpy() - rows["slow"].to_numpy()).mean()))
    with pytest.raises(VarlabError, match="Unknown method"):
        vl.compare_saved(a, a, first="fats")
    with pytest.raises(VarlabError, match="holds several methods"):
        vl.compare_saved(a, geneval(tmp_path / "results.jsonl"))


def test_geneval_results_pair_by_folder_and_number(tmp_path: Path) -> None:
    """Overall is the mean of the two tags; prompts with four images are tested as wholes."""
    a, b = geneval(tmp_path / "a.jsonl", {0, 1, 2, 8}), geneval(tmp_path / "b.jsonl", {4})
    scores = read_scores(a)
    assert scores.measures == ["correct"] and scores.rows.k.tolist()[:5] == [0, 1, 2, 3, 0]
    assert scores.rows.name.tolist()[3:5] == ["00000", "00001"]
    table = vl.compare_saved(a, b).table.set_index("category")
    assert table.loc["counting", "difference"] == pytest.approx(-4 / 40)
    assert table.loc["colors", "difference"] == pytest.approx(1 / 40)
    assert table.loc["overall", "difference"] == pytest.approx((-4 / 40 + 1 / 40) / 2)
    assert table.loc["overall", ["higher", "lower", "n", "prompts"]].tolist() == [1, 4, 80, 20]
    assert table.loc["overall", "test"] == "sign flips of prompts"


def test_one_answer_a_prompt_is_tested_by_mcnemar(tmp_path: Path) -> None:
    for name, right in (("a", [1] * 9 + [0] * 5), ("b", [0] * 9 + [1] * 2 + [0] * 3)):
        pd.DataFrame({"id": range(14), "correct": np.array(right, bool)}).to_csv(tmp_path / f"{name}.csv", index=False)
    row = vl.compare_saved(tmp_path / "a.csv", tmp_path / "b.csv").table.iloc[0]
    assert (row.test, row.higher, row.lower) == ("McNemar", 9, 2) and row.p == mcnemar(9, 2)


def test_the_order_of_rows_does_not_matter_and_ids_stay_text(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"item_id": [f"{i:03d}" for i in range(9)], "score": rng.random(9)})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.assign(score=table.score + 1).sample(frac=1, random_state=2).to_csv(tmp_path / "b.csv", index=False)
    row = vl.compare_saved(tmp_path / "b.csv", tmp_path / "a.csv").table.iloc[0]
    assert row.difference == pytest.approx(1) and read_scores(tmp_path / "a.csv").rows.name[7] == "007"


# Likeness


def test_fields_that_differ_are_named(tmp_path: Path) -> None:
    other = MADE | {"settings": {"cfg": 2.0, "tau": [1, 2]}, "date": "y", "more": 1}
    found = differing(MADE, other).set_index("field")
    assert dict(zip(found.index, found.a, strict=True)) == {"settings.cfg": "3.0", "settings.tau[1]": "1", "more": "-"}
    a, b = comparison(tmp_path / "a"), comparison(tmp_path / "b", seed=1)
    assert settings_diff(a, b).values.tolist() == [["seed", "0", "1"]]


def test_unlike_runs_are_refused_by_field(tmp_path: Path) -> None:
    a, b = comparison(tmp_path / "a"), comparison(tmp_path / "b", seed=1, weights="v", git="b")
    with pytest.raises(VarlabError, match=r"weights: w and v; seed: 0 and 1.*--despite weights --despite seed"):
        vl.compare_saved(a, b)
    with pytest.raises(VarlabError, match="differ in seed: 0 and 1"):
        vl.compare_saved(a, b, despite=["weights"])
    notes = vl.compare_saved(a, b, despite=["weights", "seed"]).notes
    assert any("weights: w and v" in note for note in notes) and any("git" in note for note in notes)
    with pytest.raises(VarlabError, match="neither has such a field"):
        vl.compare_saved(a, b, despite=["wieghts"])
    assert "how they were made" in refuse_unlike(MADE, {})[0]
    drawn = [MADE | {"drawn": [{"spec": spec, "date": spec, "folder": spec}]} for spec in ("none", "fast")]
    assert refuse_unlike(drawn[0], drawn[1]) == []  # the method is what is compared, wherever it stands
    assert refuse_unlike(MADE, MADE | {"settings": {"cfg": 1, "tau": [1, 1]}}, ["settings"])
    with pytest.raises(VarlabError, match=r"--despite settings.tau "):
        refuse_unlike(MADE, MADE | {"settings": {"cfg": 1, "tau": [1, 2]}}, ["settings.cfg"])


# Refusals


def test_missing_partners_are_named_and_said(tmp_path: Path) -> None:
    a, b = geneval(tmp_path / "a.jsonl"), geneval(tmp_path / "b.jsonl", n=18)
    with pytest.raises(VarlabError, match=r"8 are not in .*b.jsonl, such as '00018'.*--allow-missing"):
        vl.compare_saved(a, b)
    found = vl.compare_saved(a, b, allow_missing=True)
    assert found.table.n.max() == 72 and "only the 72 images" in found.notes[-1]
    other = geneval(tmp_path / "c.jsonl", prompt="another")
    with pytest.raises(VarlabError, match=r"other prompts: 'p0' in .* and 'another'"):
        vl.compare_saved(a, other)


BROKEN = {
    "cut": ('{"filename": "a/00000/samples/0000.png", "correct": true}\n{"filen', "line 2 is not valid JSON"),
    "twice": ('{"id": 1, "k": 0, "correct": true}\n{"id": 1, "k": 0, "correct": true}\n', "line 2: image 0 of '1'"),
    "no number": ('{"id": 1, "image": "x", "score": 1}\n', "line 1: image x of '1' has no whole number"),
    "no whole number": ('{"id": 1, "image": 0.5, "score": 1}\n', "line 1: image 0.5 of '1' has no whole number"),
    "no scores": ('{"id": 1, "reason": "x"}\n', "no column of numbers"),
    "empty": ("\n", "it is empty"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_their_line(case: str, tmp_path: Path) -> None:
    text, message = BROKEN[case]
    path = tmp_path / "results.jsonl"
    path.write_text(text)
    with pytest.raises(VarlabError, match=f"results.jsonl.*{message}"):
        read_scores(path)


def test_a_column_of_files_names_the_images(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,hps\nb/00007.png,.3\na/00002/samples/0001.png,.2\n")
    assert list(read_scores(tmp_path / "a.csv").of("").index) == [("00007", 0), ("00002", 1)]


def test_scores_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,hps\n1,.3\n2,nan\n3,.2\n")
    (tmp_path / "b.csv").write_text("id,hps\n1,.3\n2,.25\n3,.1\n")
    with pytest.raises(
        VarlabError, match=r"a.csv: 1 of 3 values of hps are missing or NaN, the first for image 0 of '2'"
    ):
        vl.compare_saved(tmp_path / "a.csv", tmp_path / "b.csv")
    assert vl.compare_saved(tmp_path / "a.csv", tmp_path / "b.csv", allow_missing=True).table.n[0] == 2
    for place in ("gone", "."):
        with pytest.raises(VarlabError, match="Give a folder of varlab compare"):
            read_scores(tmp_path / place)
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(VarlabError, match="no file of scores"):
        read_scores(tmp_path / "x.txt")
    (tmp_path / "x.json").write_text('{"rows": 3}')
    with pytest.raises(VarlabError, match="no scores by image"):
        read_scores(tmp_path / "x.json")


def test_the_command_writes_its_table_and_refuses_before(tmp_path: Path, varlab: Call) -> None:
    a, b, out = comparison(tmp_path / "a"), comparison(tmp_path / "b", seed=1), tmp_path / "out"
    varlab("compare-saved", a, b, "--out", out).refused("--despite seed")
    varlab("compare-saved", a, b, "--despite", "seed", "--margin", "x=y", "--out", out).refused("--margin takes")
    varlab("compare-saved", a, b, "--despite", "seed", "--margin", ".1", "--margin", "ssim=1").refused("--margin takes")
    assert not out.exists()
    call = ["compare-saved", a, b, "--despite", "seed", "--margin", "ssim=.01", "--out", out]
    said = varlab(*call)
    assert said.code == 0 and "no difference" in said.out.replace("\n", " ") and "seed: 0 and 1" in said.out
    assert len(pd.read_csv(out / "paired.csv")) == 4
    facts = json.loads((out / "facts.json").read_text())
    assert facts["made_b"]["seed"] == 1 and facts["bootstrap_seed"] == 0 and facts["git"]
    varlab(*call).refused("exists", "--overwrite")
    assert varlab(*call, "--overwrite").code == 0


def test_the_command_names_fields(tmp_path: Path, varlab: Call) -> None:
    a, b = comparison(tmp_path / "a"), comparison(tmp_path / "b", seed=1)
    assert "seed" in varlab("settings", "diff", a, b).out
    assert "nothing but their dates" in varlab("settings", "diff", a, a).out
    varlab("settings", "diff", a, tmp_path / "gone").refused("There is no")
