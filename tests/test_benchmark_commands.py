"""The commands that draw, validate and score a benchmark."""

import json
from pathlib import Path

import pytest

from tests.cli_calls import Call, places, varlab  # noqa: F401


def test_commands_draw_validate_and_score(varlab: Call) -> None:
    prompts = [{"id": name, "prompt": f"a {name} star"} for name in ("red", "blue")]
    Path("p.json").write_text(json.dumps(prompts), "utf-8-sig")  # as editors of Windows write it
    own = ("--prompts", "p.json", "--out", "o", "--per-prompt", 1)
    drawn = varlab("generate", "imagereward", "nano-infinity", "none", "truncate:last=1", *own)
    assert drawn.code == 0 and "o/truncate-last=1: 2 pictures drawn" in drawn.out
    assert "0 faults; 4 pictures are expected" in varlab("validate", "imagereward", "o").out
    varlab("score", "imagereward", "o").refused("ImageReward is not installed here", "varlab adapter imagereward")
    for spec, offset in (("none", 1.0), ("truncate-last=1", 0.5)):
        Path("o", spec, "scores.csv").write_text(f"id,index,score\nred,0,{offset}\nblue,0,{offset + 1}\n")
    scored = varlab("score", "imagereward", "o", "--json", "s.json")
    assert scored.code == 0
    record = json.loads(Path("s.json").read_text())
    assert [(entry["method"], entry["imagereward"]) for entry in record["entries"]] == [
        ("none", 1.0), ("none", 2.0), ("truncate:last=1", 0.5), ("truncate:last=1", 1.5),
    ]  # fmt: skip
    assert record["weights"].startswith("trained")
    varlab("score", "imagereward", "o", "--json", "s.json").refused("s.json exists")
    Path("o/none/images/red_0.png").unlink()
    wrong = varlab("validate", "imagereward", "o")
    assert wrong.code == 1 and "red_0.png: missing" in wrong.out
    assert "again by the same command: varlab generate imagereward nano-infinity none --out o ..." in wrong.out
    assert "o/none: 1 picture drawn" in varlab("generate", "imagereward", "nano-infinity", "none", *own).out
    Path("o/none/scores.csv").write_text("id,index,score\nred,0,1\n")
    varlab("score", "imagereward", "o").refused("lacks 1 of 2 images", "--allow-missing")


REFUSED = {
    "no such benchmark": (["generate", "genevol", "nano-infinity", "none", "--out", "o"], "Did you mean geneval"),
    "no such model": (["generate", "scenes", "nano-infinit", "none", "--out", "o"], "nano-infinity"),
    "no such method": (["generate", "scenes", "nano-infinity", "nine", "--out", "o"], "nine"),
    "no such format": (["generate", "hps", "nano-infinity", "none", "--out", "o", "--format", "png"], "stored as .jpg"),
    "prompts not here": (["generate", "dpg", "nano-infinity", "none", "--out", "o"], "give it with --prompts"),
    "prompts not read": (
        ["generate", "scenes", "nano-infinity", "none", "--out", "o", "--prompts", "p.csv"],
        "The scene benchmark reads no prompt file",
    ),
    "nor of classes": (["generate", "fid", "mini-var", "none", "--out", "o", "--prompts", "p"], "reads no prompt file"),
    "nor of a folder": (["score", "scenes", ".", "--prompts", "p.csv"], "reads no prompt file"),
    "one image": (
        ["generate", "hps", "nano-infinity", "none", "--out", "o", "--per-prompt", "2"], "one image of each prompt"
    ),
    "no square": (
        ["generate", "dpg", "nano-infinity", "none", "--out", "o", "--per-prompt", "3"], "square of 4 images, or one"
    ),
    "no classes": (["generate", "fid", "nano-infinity", "none", "--out", "o"], "mini-var"),
    "no images": (["generate", "scenes", "nano-infinity", "none", "--out", "o", "--n", "0"], "n must be at least 1"),
    "no rewritten": (
        ["generate", "scenes", "nano-infinity", "none", "--out", "o", "--rewritten", "x.json"], "no file x.json"
    ),
    "neither": (["score", "geneval", "nowhere"], "There is no folder 'nowhere' either"),
    "from a model": (["score", "geneval", "nano-infinity"], "varlab generate geneval nano-infinity"),
    "folder's option": (["score", "scenes", "nano-infinity", "--mode", "corrected"], "are of folders"),
    "model's option": (["score", "scenes", ".", "--n", "3"], "belong to varlab generate"),
    "no samples": (["score", "scenes", "nano-infinity", "--per-prompt", "0"], "per_prompt must be at least 1"),
    "no script": (["adapter", "scenes"], "needs no other network"),
    "no folder": (["validate", "geneval", "nowhere"], "There is no folder nowhere"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), REFUSED.values(), ids=REFUSED)
def test_mistakes_are_told_before_anything_is_made(
    varlab: Call, arguments: list[str], says: str
) -> None:  # fmt: skip
    varlab(*arguments).refused(says)
    assert not list(Path().iterdir())


def test_adapters_are_printed_and_written_once(varlab: Call) -> None:
    printed = varlab("adapter", "hps").out
    assert printed.startswith('"""HPSv2 cosines') and "varlab" not in printed.replace("no varlab", "")
    assert varlab("adapter", "hps", "--out", "hps.py").code == 0
    assert Path("hps.py").read_text() == printed
    varlab("adapter", "hps", "--out", "hps.py").refused("hps.py exists")
