"""Procedural captioned scenes and the scorer that plays GenEval's detector on them."""

from varlab.scenes.dataset import make_dataset
from varlab.scenes.grammar import (
    CATEGORIES,
    COLORS,
    SCENE_VERSION,
    SCENE_VERSIONS,
    SHAPES,
    TEXTURED,
    TEXTURES,
    VOCABULARY,
    Scene,
    SceneObject,
    benchmark_prompt,
    caption,
    require_version,
    shortened,
    tokenize,
)
from varlab.scenes.parsing import Clause, Requirement, parse
from varlab.scenes.render import render
from varlab.scenes.sampling import sample_scenes
from varlab.scenes.scorer import (
    Detection,
    Judgement,
    detect,
    judge,
    judge_detections,
    score_images,
    shape_recall,
    summarise,
)

__all__ = [
    "CATEGORIES", "COLORS", "SCENE_VERSION", "SCENE_VERSIONS", "SHAPES", "TEXTURED", "TEXTURES", "VOCABULARY", "Clause",
    "Detection", "Judgement", "Requirement", "Scene", "SceneObject", "benchmark_prompt", "caption", "detect", "judge",
    "judge_detections", "make_dataset", "parse", "render", "require_version", "sample_scenes", "score_images",
    "shape_recall", "shortened", "summarise", "tokenize",
]  # fmt: skip
