"""The scripts of the model half with stand-in networks of the same interface: what they read, ask and write."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from varlab.errors import VarlabError
from varlab.evaluation import adapters
from varlab.evaluation.benchmarks import BENCHMARKS
from varlab.evaluation.contract import Folder
from varlab.evaluation.judging import judge
from varlab.evaluation.scripts import (
    dpg_answer,
    geneval_detect,
    hps_score,
    imagereward_score,
    inception_features,
)

SCRIPTS = Path(adapters.__file__).parent / "scripts"
RED = (255, 0, 0)


def picture(path: Path, colour: tuple[int, int, int] = RED, size: tuple[int, int] = (32, 32)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


EACH = """
import contextlib, runpy, sys
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    with contextlib.suppress(SystemExit):
        runpy.run_path(path, run_name="__main__")
    assert not any(name.split(".")[0] == "varlab" for name in sys.modules), path
"""


def test_scripts_run_without_varlab(tmp_path: Path) -> None:
    """Alone, from another folder, and isolated from this package; one interpreter for all, which has torch to load."""
    copies = [Path(shutil.copy(path, tmp_path)) for path in sorted(SCRIPTS.glob("[a-z]*.py"))]
    command = [sys.executable, "-I", "-c", EACH, *map(str, copies)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert [f"usage: {copy.name}" in found.stdout for copy in copies] == [True] * len(copies) and copies


def test_geneval_detections_of_stand_ins(tmp_path: Path) -> None:
    """A detector that sees one cat as large as the image, and a CLIP that knows colours by their pixels."""
    about = {
        "tag": "colors",
        "include": [{"class": "cat", "count": 1, "color": "red"}],
        "prompt": "a photo of a red cat",
    }
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps(about) + "\n")
    for k, colour in enumerate((RED, (0, 0, 255), RED, RED)):
        picture(tmp_path / "images" / "00000" / "samples" / f"{k:04d}.png", colour)
    (tmp_path / "images" / "00000" / "metadata.jsonl").write_text(json.dumps(about))
    asked: list[str] = []

    def detector(place: Path) -> geneval_detect.Seen:
        inside = np.zeros((32, 32), bool)
        inside[4:28, 4:28] = True
        boxes = np.array([[4, 4, 28, 28, 0.9], [0, 0, 4, 4, 0.01]], dtype=np.float32)
        return {"cat": (boxes, np.stack([inside, inside])), "dog": (boxes[1:], None)}

    def images(crops: Sequence[Image.Image]) -> Tensor:
        return torch.stack([torch.from_numpy(np.array(crop)).float().mean((0, 1)) for crop in crops])

    def texts(sentences: Sequence[str]) -> Tensor:
        asked.extend(sentences)
        colours = {"red": (1.0, 0, 0), "blue": (0, 0, 1.0)}
        return torch.tensor([next((v for n, v in colours.items() if f" {n}" in s), (0, 1.0, 0)) for s in sentences])

    out = tmp_path / "detections.jsonl"
    geneval_detect.main([str(tmp_path / "images"), str(out)], detector, geneval_detect.Clip(images, texts))
    header, first, *_ = [json.loads(line) for line in out.read_text().splitlines()]
    assert (header["background"], header["detector"], header["crop"]) == ("#999", "given", "1")
    assert header["formats"] == [".png"]
    assert list(first["detections"]) == ["cat"] and len(first["detections"]["cat"]) == 1  # of no less than the floor
    assert first["colours"] == {"cat": ["red"]}
    assert asked[:3] == ["a photo of a red cat", "a photo of a red-colored cat", "a photo of a red object"]
    scores = judge("geneval", tmp_path / "images", prompts, out)
    assert scores.entries["correct"].tolist() == [True, False, True, True]


def test_objects_of_mask2former_are_those_of_mmdet() -> None:
    """The best pairs of query and class; a score is that of the class times the mean of the mask."""
    logits = torch.full((2, 3), -20.0)
    logits[0, 1] = logits[1, 2] = 20.0  # a query of class 1, and one of no object
    masks = torch.full((2, 4, 4), -9.0)
    masks[0, 1:3, 1:3] = 3.0
    (name, (boxes, own)), *rest = geneval_detect.instances(logits, masks, (4, 4), {0: "mouse", 1: "remote"}).items()
    assert name == "tv remote" and own is not None and own[0].sum() == 4
    assert boxes[0, :4].tolist() == [1, 1, 3, 3]
    assert boxes[0, 4] == pytest.approx(torch.tensor(3.0).sigmoid().item())
    assert all(found[0][:, 4].max() < 1e-6 for _, found in rest)


def test_networks_of_transformers_are_called_as_that_library_has_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Tiny ones with random weights: masks come at the size of the image, features as vectors."""
    hub = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip = hub.CLIPModel(hub.CLIPConfig(
        text_config=small | {"vocab_size": 50000, "max_position_embeddings": 16},
        vision_config=small | {"image_size": 224, "patch_size": 112}, projection_dim=16,
    ))  # fmt: skip
    swin = hub.SwinConfig(
        image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 1, 1], window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    finder = hub.Mask2FormerForUniversalSegmentation(hub.Mask2FormerConfig(
        backbone_config=swin, hidden_dim=32, feature_size=32, mask_feature_size=32, num_queries=5, decoder_layers=2,
        encoder_layers=1, num_attention_heads=2, dim_feedforward=16, encoder_feedforward_dim=16, num_labels=3,
    ))  # fmt: skip
    words = hub.BatchFeature({"input_ids": torch.zeros(2, 4, dtype=torch.long), "attention_mask": torch.ones(2, 4)})
    pictures = hub.CLIPImageProcessor()

    def read(**given: Any) -> Any:
        return words if "text" in given else pictures(**given)

    for kind, found in (
        ("AutoImageProcessor", hub.Mask2FormerImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})),
        ("Mask2FormerForUniversalSegmentation", finder), ("CLIPProcessor", read), ("CLIPModel", clip),
    ):  # fmt: skip
        monkeypatch.setattr(getattr(hub, kind), "from_pretrained", lambda name, found=found: found)
    detector, known = geneval_detect.with_transformers("a", "b", "cpu")
    seen = detector(picture(tmp_path / "a.png", size=(80, 50)))
    assert seen and all(masks is not None and masks.shape[1:] == (50, 80) for _, masks in seen.values())
    assert all(boxes[:, 2].max() <= 80 and boxes[:, 3].max() <= 50 for boxes, _ in seen.values())
    assert known.images([Image.new("RGB", (9, 9))] * 3).shape == (3, 16) and known.texts(["a", "b"]).shape == (2, 16)


def test_an_empty_crop_has_no_colour() -> None:
    clip = geneval_detect.Clip(lambda crops: torch.ones(len(crops), 3), lambda texts: torch.ones(len(texts), 3))
    assert geneval_detect.colours_of(clip, [Image.new("RGB", (0, 4)), Image.new("RGB", (4, 4))], "cat") == [None, "red"]
    assert geneval_detect.colours_of(clip, [Image.new("RGB", (0, 4))], "cat") == [None]


def test_dpg_answers_of_a_stand_in(tmp_path: Path) -> None:
    grid = Image.new("RGB", (16, 16))
    grid.paste(Image.new("RGB", (8, 8), RED), (8, 0))  # the second sample is red
    (tmp_path / "images").mkdir()
    grid.save(tmp_path / "images" / "007.png")
    (tmp_path / "images" / "note.txt").write_text("")
    questions = tmp_path / "dpg_bench.csv"
    questions.write_text(
        "item_id,text,proposition_id,dependency,tuple,question_natural_language\n"
        '007,a text,1,0,entity - whole (x),"Is it red, or not?"\n'
    )

    def network(part: Image.Image, question: str) -> str:
        assert part.size == (8, 8) and question == "Is it red, or not?"
        return "yes" if part.getpixel((0, 0)) == RED else "no"

    out = tmp_path / "answers.csv"
    dpg_answer.main([str(tmp_path / "images"), str(questions), str(out), "--resolution", "8"], network)
    assert json.loads((tmp_path / "answers.json").read_text())["crops"] == 4
    scores = judge("dpg", tmp_path / "images", questions, out, mode="corrected")
    assert scores.table["value"].iloc[0] == 25.0
    with pytest.raises(SystemExit, match="among the pictures"):
        dpg_answer.main([str(tmp_path / "images"), str(questions), str(tmp_path / "images" / "a.csv")], network)


def test_hps_cosines_of_a_stand_in(tmp_path: Path) -> None:
    for i in (0, 2):
        picture(tmp_path / "images" / "anime" / f"{i:05d}.jpg", (80 * i, 0, 0), (64, 32))
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "anime.json").write_text(json.dumps(["zero", "one", "two"]))
    asked: list[str] = []

    def network(tensors: Tensor, texts: Sequence[str]) -> Sequence[float]:
        asked.extend(texts)
        assert tensors.shape[1:] == (3, 224, 224)
        return tensors.mean((1, 2, 3)).tolist()

    out, arguments = tmp_path / "scores.csv", [str(tmp_path / "images"), str(tmp_path / "prompts")]
    hps_score.main([*arguments, str(out), "--antialias", "no"], network)
    facts = json.loads((tmp_path / "scores.json").read_text())
    assert asked == ["zero", "two"] and facts["antialias"] is False and facts["version"] == "v2.1"
    scores = judge("hps", tmp_path / "images", tmp_path / "prompts", out, allow_missing=True)
    assert scores.entries["entry"].tolist() == ["anime/00000", "anime/00002"]
    assert any("antialias False" in note for note in scores.notes)
    picture(tmp_path / "images" / "anime" / "00001.jpg", size=(224, 60))
    with pytest.raises(SystemExit, match=r"00001.jpg: HPSv2 makes \(3, 60, 224\) of it"):
        hps_score.main([*arguments, str(out)], network)


def test_imagereward_of_a_stand_in(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a_0.png")
    picture(tmp_path / "images" / "007" / "007_1.jpg")  # as Infinity's script lays them out
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"id": "a", "prompt": "x"}, {"id": "007", "prompt": "y"}]))
    out = tmp_path / "scores.csv"
    imagereward_score.main([str(tmp_path / "images"), str(prompts), str(out)], lambda t, text: [float(len(t))] * len(t))
    rows = [line.split(",") for line in out.read_text().splitlines()]
    assert [row[:2] for row in rows] == [["id", "index"], ["a", "0"], ["007", "1"]]
    assert float(rows[1][2]) == pytest.approx((1 - 0.16717362830052426) / 1.0333394966054072)


def test_inception_features_of_a_stand_in(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / "images" / "a" / f"{i}.png", (i, 0, 0), (8, 8 + (i == 2)))

    def network(pixels: Tensor) -> tuple[Tensor, ...]:
        assert pixels.dtype == torch.uint8
        values = pixels.float().flatten(1)
        return values[:, :4], values[:, :2], values[:, :3]

    out = tmp_path / "features.npz"
    inception_features.main([str(tmp_path / "images"), str(out)], network)
    with np.load(out) as file:
        assert file["names"].tolist() == ["a/0.png", "a/1.png", "a/2.png"]
        assert (
            file["features"][:, 0].tolist() == [0, 1, 2]
            and file["logits"].shape == (3, 2)
            and file["spatial"].shape == (3, 3)
        )
    np.savez(tmp_path / "adm.npz", arr_0=np.full((5, 8, 8, 3), 7, np.uint8))
    inception_features.main([str(tmp_path / "adm.npz"), str(out)], network)
    scores = judge("fid", tmp_path, results=out, references=[out])
    assert scores.table["images"].iloc[0] == 5 and "sfid" in set(scores.table["measure"])


def test_spatial_features_are_seven_channels_of_the_third_wide_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the ADM evaluator reads them: channels last, then flat."""

    maps = torch.arange(2 * 9 * 4 * 5.0).view(2, 9, 4, 5)

    class Inception(nn.Module):
        def __init__(self, name: str, features: list[str]) -> None:
            super().__init__()
            self.Mixed_6d = nn.ModuleDict({"branch1x1": nn.Identity()})
            self.Mixed_6d.branch1x1 = self.Mixed_6d["branch1x1"]
            assert (name, features) == ("inception-v3-compat", ["2048", "logits_unbiased"])

        def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
            self.Mixed_6d["branch1x1"](maps)
            return pixels.float().mean((2, 3)), pixels.float().amax((2, 3))

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Inception  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    network = inception_features.load("cpu")
    for _ in range(2):  # nothing is left of the batch before
        pool, logits, spatial = network(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
        assert pool.shape == logits.shape == (2, 3)
        assert np.array_equal(spatial, maps.numpy().transpose(0, 2, 3, 1)[..., :7].reshape(2, 4 * 5 * 7))


# In this process


def test_results_are_made_here_where_the_packages_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "images" / "a_0.png")
    prompts, out = tmp_path / "prompts.json", tmp_path / "scores.csv"
    prompts.write_text(json.dumps([{"id": "a", "prompt": "x"}]))
    bench = BENCHMARKS["imagereward"]
    with pytest.raises(VarlabError, match=r"varlab adapter imagereward > imagereward_score.py"):
        adapters.make_results(bench, Folder.at(tmp_path), prompts, out)
    monkeypatch.setattr(adapters, "absent", lambda benchmark, options: [])
    monkeypatch.setattr(imagereward_score, "load", lambda weights, device: lambda t, text: [0.5] * len(t))
    scores = judge("imagereward", tmp_path / "images", prompts, out, allow_missing=True)
    assert len(scores.entries) == 1 and json.loads((tmp_path / "scores.json").read_text())["benchmark"] == "imagereward"


def test_a_network_that_fails_leaves_no_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "images" / "a_0.png")
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps([{"id": "a", "prompt": "x"}]))
    monkeypatch.setattr(adapters, "absent", lambda benchmark, options: [])
    monkeypatch.setattr(imagereward_score, "load", lambda weights, device: lambda t, text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        adapters.make_results(BENCHMARKS["imagereward"], Folder.at(tmp_path), prompts, tmp_path / "scores.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "prompts.json"]
