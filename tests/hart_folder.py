"""HART's released folder, written from a tiny model, for tests of what reads one."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.conftest import HART_TEXT, HART_TEXT_WIDTH
from varlab.models.hart_model import Hart
from varlab.weights.hart_files import load_hart
from varlab.weights.registry import find

ENTRY = find("hart-0.7b")


def config_of(model: Hart) -> dict[str, Any]:
    """``config.json`` as the official code writes it."""
    config = model.transformer.config
    return {
        "depth": config.depth, "embed_dim": config.width, "num_heads": config.heads, "mlp_type": "llama",
        "patch_nums": [grid[0] for grid in model.schedule.grids], "num_sampling_steps": str(config.diffusion_steps),
        "sep_aln_pooling_mode": "max" if config.pooling == "max" else "avg", "attn_l2_norm": config.unit_attention,
        "shared_aln": config.modulation == "shared", "disable_aln": config.modulation != "block",
        "use_timestep_embed": not config.learned_levels, "context_dim": HART_TEXT_WIDTH, "context_token": HART_TEXT,
        "diff_width": config.diffusion_width, "mlp_ratio": config.mlp_ratio,
    }  # fmt: skip


def write(folder: Path, model: Hart, **changes: Any) -> Path:
    """The released layout: averaged and plain weights of the transformer, tokenizer with what only training used."""
    (folder / "llm").mkdir(parents=True)
    (folder / "tokenizer").mkdir()
    length = HART_TEXT - 1 + model.schedule.tokens
    extra = {"lvl_1L": torch.zeros(1, length, dtype=torch.int64), "attn_bias_for_masking": torch.zeros(1, 1, 2, 2)}
    tensors = model.transformer.state_dict()
    torch.save(tensors | extra, folder / "llm" / "ema_model.bin")
    plain = {name: tensor + 1 if name == "head.bias" else tensor.clone() for name, tensor in tensors.items()}
    save_file(plain | extra, folder / "llm" / "model.safetensors")
    (folder / "llm" / "config.json").write_text(json.dumps(config_of(model) | changes))
    images = {f"vae.{name}": tensor for name, tensor in model.tokenizer.state_dict().items()}
    unused = ("vae.quantize.ema_vocab_hit_SV", "vae.decoder2.conv_in.weight", "disc.main.0.weight")
    torch.save(images | {name: torch.zeros(2, 3) for name in unused}, folder / "tokenizer" / "pytorch_model.bin")
    return folder


def load_features(folder: Path, **options: Any) -> Hart:
    return load_hart(ENTRY, checkpoint=folder, text="features", **options)
