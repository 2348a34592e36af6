"""The ledger of published numbers: whole, derived by rule, and true to the documents where they are at hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from varlab.claims.accounts import exit_gflops, implied_keep, last_share, stage_flops
from varlab.claims.arithmetic import Book, checks, standard_error
from varlab.claims.command import checked, explained, listed
from varlab.claims.derive import check_verdicts, verdicts
from varlab.claims.documents import coverage, kept_coverage, numbers_in, read_documents
from varlab.claims.ledger import CLAIMS, Claim, claims_folder, read_claims, select
from varlab.claims.prose import prose
from varlab.claims.verdict import Outcome
from varlab.cli import app
from varlab.errors import VarlabError

SEEDS = Path(__file__).parents[2] / "shared" / "seeds"
WITH = "sparsevar.poster.geneval.infinity-2b"


@pytest.fixture(scope="module")
def book() -> Book:
    return Book(read_claims())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A ledger of its own, without runs."""
    for name in (CLAIMS, "documents.json", "verdicts.jsonl"):
        shutil.copy(claims_folder() / name, tmp_path / name)
    shutil.copytree(claims_folder() / "runs", tmp_path / "runs") if (claims_folder() / "runs").is_dir() else None
    return tmp_path


def test_the_posters_tables_stand_in_the_ledger_number_by_number(book: Book) -> None:
    value = {claim.id: claim.value for claim in book.claims}
    assert value[f"{WITH}-tau-0.6.counting"] == 0.6812 and value[f"{WITH}-tau-0.7.latency"] == 1.36
    assert value["sparsevar.poster.dpg.hart-0.7b-tau-0.5.dpg-relation"] == 0.9233
    assert value["sparsevar.poster.preference.hart-0.7b-tau-0.7.ir"] == 0.4333
    assert value["sparsevar.poster.ablation-alpha.hart-0.7b-alpha-none.latency"] == 0.93
    assert value["sparsevar.poster.ablation-p.infinity-2b-p-12.overall"] == 0.7274
    assert value["freqexit.table-1.imagenet-256.freqexit-d.fid"] == 3.58
    sizes = {group: sum(c.group == group for c in book.claims) for group in {c.group for c in book.claims}}
    tables = ("geneval", "dpg", "preference", "ablation-alpha", "ablation-p", "pictures")
    assert [sizes[f"sparsevar.poster.{name}"] for name in tables] == [80, 40, 80, 20, 24, 6]


@pytest.mark.skipif(not SEEDS.is_dir(), reason="the papers' documents are not beside this checkout")
def test_every_number_of_the_documents_has_a_row(book: Book, tmp_path: Path) -> None:
    found = coverage(book.claims, SEEDS)
    assert len(found) == 4 and all(one.complete for one in found), [one.line() for one in found]
    assert max(one.numbers for one in found) > 300
    texts = {next(n for n, about in read_documents().items() if about["contains"] in text): text
             for text in (path.read_text() for path in SEEDS.iterdir())}  # fmt: skip
    assert {name: numbers_in(text) for name, text in texts.items()} == {
        name: about["numbers"] for name, about in read_documents().items()
    }
    poster = next(path for path in SEEDS.iterdir() if "Ablation Studies" in path.read_text())
    (tmp_path / "poster.txt").write_text(poster.read_text().replace("0.8341", "0.8342") + "\nand 17.3 times more\n")
    (one,) = coverage(book.claims, tmp_path)
    assert one.missing == {"17.3": 1} and one.surplus == {}  # 0.8341 is no number of the poster
    (tmp_path / "poster.txt").write_text(poster.read_text().replace("0.4333", "0.4343"))
    (one,) = coverage(book.claims, tmp_path)
    assert one.missing == {"0.4343": 1} and one.surplus == {"0.4333": 1}


def test_every_number_kept_of_the_documents_has_a_row(book: Book) -> None:
    found = kept_coverage(book.claims)
    assert len(found) == 4 and all(one.complete for one in found), [one.line() for one in found]
    fewer = [claim for claim in book.claims if claim.id != f"{WITH}-tau-0.6.counting"]
    assert [one.missing for one in kept_coverage(fewer) if not one.complete] == [{"0.6812": 1}]


def test_numbers_of_names_and_links_are_none() -> None:
    text = "Infinity-2B of ^{1 2} https://a.b/abs/2507.20454 gains 2x and 25\\% at 1.42s, HPSv2.1, 4K <img width=9>"
    assert numbers_in(text) == ["2", "25", "1.42"]


def test_an_unknown_document_has_no_rows(book: Book, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("It is 3.5 times as fast.")
    assert coverage(book.claims, tmp_path)[0].missing == {"3.5": 1}
    with pytest.raises(VarlabError, match="holds no document"):
        coverage(book.claims, tmp_path / "none")


# Arithmetic


def agreed(book: Book, name: str, rule: str) -> bool | None:
    return next(check.agrees for check in checks(book, book.ids[name]) if check.rule == rule)


def test_rows_are_held_against_their_means(book: Book) -> None:
    assert agreed(book, f"{WITH}-tau-0.5.overall", "row-mean") is True
    wrong = [Claim(**{**vars(c), "value": 0.75, "quote": "0.7500"}) if c.id == f"{WITH}-tau-0.5.overall" else c
             for c in book.claims]  # fmt: skip
    assert agreed(Book(wrong), f"{WITH}-tau-0.5.overall", "row-mean") is False


def test_speed_ups_are_held_against_latencies(book: Book) -> None:
    assert agreed(book, "depthvar.table.infinity-2b.sparsevar-0.7.speed-up", "speed-up-from-latency") is True
    name = "toprovar.table.infinity-2b-geneval-and-dpg.skipvar.speed-up"
    assert agreed(book, name, "speed-up-from-latency") is False  # 2.10 over 1.10 s is 1.91
    assert agreed(book, "freqexit.table-1.imagenet-256.freqexit-a.throughput", "throughput-from-latency") is False


def test_two_reports_of_one_setting_are_held_together(book: Book) -> None:
    assert agreed(book, "sparsevar.poster.ablation-p.infinity-2b-p-10.overall", "same-setting") is True
    assert agreed(book, "sparsevar.poster.ablation-p.hart-0.7b-p-10.overall", "same-setting") is False  # .5602, .5606


def test_accounts_of_shapes() -> None:
    """From the public shapes: 115 TFLOP for Infinity-2B at 1024 pixels, 22.2 a row for HART, FreqExit's table."""
    assert sum(stage_flops("infinity-2b")) / 1e12 == pytest.approx(115.1, rel=0.01)
    assert sum(stage_flops("hart-0.7b")) / 2e12 == pytest.approx(22.20, rel=0.01)
    assert last_share("infinity-2b", 3) == pytest.approx(0.817, abs=0.002)
    assert implied_keep("infinity-2b", 2.78, 1.47, "profile") == pytest.approx(0.27, abs=0.01)
    assert implied_keep("hart-0.7b", 1.32, 0.81, "profile") == pytest.approx(0.20, abs=0.01)
    vectors = ((16,) * 10, (16,) * 5 + (12,) * 5, (12,) * 10, (10,) * 10)
    assert [round(exit_gflops(exits)) for exits in vectors] == [1664, 1465, 1448, 1340]
    rates = {"sin-obj": 1.0, "two-obj": 0.8586, "counting": 0.6844, "colors": 0.8431, "position": 0.4175,
             "color-attri": 0.5525}  # fmt: skip
    assert standard_error(rates) == pytest.approx(0.0085, abs=2e-4)


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("sparsevar.poster.text.hart-25-percent.reduction", Outcome.PARTLY),  # not where ImageReward is kept
        ("sparsevar.poster.text.infinity-2b-up-to-2x.speed-up", Outcome.PARTLY),
        ("sparsevar.poster.text.50-percent.reduction", Outcome.ARITHMETIC),
        ("skipvar.summary.text.1.81x.speed-up", Outcome.PARTLY),  # its row has an SSIM of .8793
        ("freqexit.readme.text.up-to-2x.speed-up", Outcome.ARITHMETIC),
    ],
)
def test_prose_is_held_against_the_tables(book: Book, name: str, outcome: Outcome) -> None:
    found = prose(book, book.ids[name])
    assert found is not None and found[0] is outcome


# The files and the command


def test_every_verdict_is_derived_again() -> None:
    found = check_verdicts()
    own = [row for row in found if not row["model"].startswith("mini-")]
    assert len(own) == len(read_claims()) and {row["verdict"] for row in found} <= set(Outcome)
    for row in found:
        measured = row["run"] and not row["run"].endswith("/ablation")
        if measured and row["verdict"] in ("holds", "partly", "does not hold"):
            assert row["baselines"] and row["n"] and row["weights"] and row["command"] and row["commit"], row["claim"]


def test_a_typed_verdict_is_found(copy: Path) -> None:
    path = copy / "verdicts.jsonl"
    path.write_text(path.read_text().replace('"verdict": "partly"', '"verdict": "holds"', 1))
    with pytest.raises(VarlabError, match=r"line .* is not what the rules derive"):
        list(checked(copy, None))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: [lines[1], lines[0], *lines[2:]], "line 2: .* out of order"),
        (lambda lines: [lines[0], lines[0], *lines[1:]], "line 2: .* twice"),
        (lambda lines: [lines[0][:40], *lines[1:]], "line 1 is not valid JSON"),
        (lambda lines: [lines[0].replace('"quote"', '"quot"'), *lines[1:]], "line 1: missing or unknown fields"),
        (lambda lines: [json.dumps({**json.loads(lines[0]), "source_kind": "rumour"}), *lines[1:]], "line 1: .*rumour"),
    ],
)
def test_a_damaged_ledger_is_named_by_its_line(copy: Path, change: object, match: str) -> None:
    path = copy / CLAIMS
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")  # type: ignore[operator]
    with pytest.raises(VarlabError, match=match):
        verdicts(copy)


def test_filters_and_explanations(book: Book) -> None:
    rows = listed(None, "partly", None, paper="sparsevar")
    assert len(rows) and set(rows.verdict) == {"partly"} and rows.claim.str.startswith("sparsevar").all()
    assert {c.method for c in select(book.claims, paper="2506.08908")} == {"skipvar"}
    assert "ImageReward" not in " ".join(explained(None, "hart-25-percent"))
    text = "\n".join(explained(None, "hart-25-percent"))
    assert "~25%" in text and "hart-0.7b: partly" in text and "faster-within-loss: does not agree" in text
    with pytest.raises(VarlabError, match=r"a part of .* ids"):
        list(explained(None, "geneval"))
    for wrong in ({"paper": "sparsvar"}, {"source_kind": "blog"}, {"method": "sparse"}):
        with pytest.raises(VarlabError):
            listed(None, **wrong)
    with pytest.raises(VarlabError, match="partly"):
        listed(None, "partially")


def test_the_command() -> None:
    run = CliRunner().invoke
    assert f"{len(read_claims())} claims" in run(app, ["claims", "--check"]).output
    assert "skipvar" in run(app, ["claims", "--paper", "skipvar", "--outcome", "partly"]).output
    for words in (["--check", "--derive"], ["--documents", "x"], ["x", "--check"], ["--check", "--folder", "nowhere"]):
        assert isinstance(run(app, ["claims", *words]).exception, VarlabError)


def test_no_dense_latency_beats_the_peak_of_its_gpu(book: Book) -> None:
    name = "freqexit.table-1.imagenet-256.var-d20.latency"
    (own,) = [check for check in checks(book, book.ids[name]) if check.rule == "share-of-peak"]
    assert own.agrees is None and own.found == pytest.approx(1879e9 / 165.2e12)  # GFLOP of an image, an RTX 4090
    assert "4.3% of the time that is printed" in own.text
    faster = replace(book.ids[name], value=0.01)
    assert [c.agrees for c in checks(book, faster) if c.rule == "share-of-peak"] == [False]
    pruned = book.ids["freqexit.table-1.imagenet-256.freqexit-d.latency"]
    assert not [check for check in checks(book, pruned) if check.rule == "share-of-peak"]
