"""Text encoders outside the checkpoints: Flan-T5 as the official models use it, and labelled random features."""

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from varlab.errors import VarlabError, quoted, unknown
from varlab.json_files import read_json
from varlab.models.infinity import TextBatch

LONGEST = 512
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
INSTALL = "text encoder needs transformers. In the repository: pip install -e .[text]"
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def require_transformers(name: str) -> None:
    """Raises VarlabError where the library of the ``name`` text encoder is not installed."""
    if find_spec("transformers") is None:
        raise VarlabError(f"The {name} {INSTALL}")


def first_line(error: Exception) -> str:
    """What an error says, or its class where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


TOKENIZERS = ("tokenizer.json", "spiece.model", "vocab.json", "tokenizer_config.json")


def check_folder(source: str) -> None:
    """Raises VarlabError for an encoder that is a file, or a folder that lacks one or has a damaged config."""
    path = Path(source)
    if path.is_file():
        raise VarlabError(
            f"The text encoder {path} is a file. Give the folder with config.json, tokenizer and weights."
        )
    if not path.is_dir():
        return
    weights = any(file.suffix in (".safetensors", ".bin") for file in path.iterdir())
    present = {
        "config.json": (path / "config.json").is_file(),
        f"the tokenizer ({' or '.join(TOKENIZERS[:3])})": any((path / name).is_file() for name in TOKENIZERS),
        "weights (.safetensors or .bin)": weights,
    }
    if missing := [name for name, here in present.items() if not here]:
        raise VarlabError(f"The text encoder {path} lacks {' and '.join(missing)}. Give a folder downloaded whole.")
    read_json(path / "config.json", "Download the text encoder again.")


class FlanT5:
    """Prompts -> the encoder's last hidden states, ragged and fp32, as many rows as a prompt has tokens with ``</s>``.

    Loaded at the first call (4.9 GB in fp32 for xl, half of that in bf16 or in fp16, which the official run uses).
    Prompts are cut after 512 tokens, with a warning. Padding to the longest of a batch instead of to 512 changes
    nothing but rounding, since padding is masked. Source: the official inference code of Infinity.
    """

    def __init__(self, path_or_id: str = "google/flan-t5-xl", device: str = "cpu", precision: str = "fp32") -> None:
        if precision not in TYPES:
            raise unknown("text precision", precision, TYPES)
        self.source, self.device, self.precision = os.path.expanduser(path_or_id), device, precision
        self.label = f"{self.source} ({precision})"
        self.files = (Path(self.source),)
        self._parts: tuple[Any, Any] | None = None

    def require(self) -> None:
        """Raises VarlabError when the library or a folder is missing; loads nothing, so it comes before weights."""
        require_transformers("Flan-T5")
        if not os.path.exists(self.source) and not HUB_ID.fullmatch(self.source):
            raise VarlabError(f"The text encoder {self.source} does not exist. Give its folder or a Hugging Face id.")
        check_folder(self.source)

    def parts(self) -> tuple[Any, Any]:
        """The tokenizer and the encoder; raises VarlabError when the library or the files are missing."""
        if self._parts is None:
            try:
                from transformers import AutoTokenizer, T5EncoderModel
            except ImportError as error:
                raise VarlabError(f"The Flan-T5 {INSTALL}") from error
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source, legacy=True)
                encoder: Any = T5EncoderModel.from_pretrained(self.source, torch_dtype=TYPES[self.precision])
            except Exception as error:  # transformers, safetensors and pickle have a class each for a damaged file
                raise VarlabError(
                    f"The text encoder {self.source} could not be loaded ({first_line(error)}). Give text= "
                    "the folder of a downloaded flan-t5-xl, or text='random' where prompts need no meaning."
                ) from error
            self._parts = tokenizer, encoder.to(self.device).eval().requires_grad_(False)
        return self._parts

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str]) -> TextBatch:
        prompts = checked(prompts)
        tokenizer, encoder = self.parts()
        batch = tokenizer(prompts, max_length=LONGEST, truncation=True, padding="longest", return_tensors="pt")
        mask = batch["attention_mask"]
        for prompt, length in zip(prompts, mask.sum(1).tolist(), strict=True):
            if length == LONGEST and len(tokenizer([prompt])["input_ids"][0]) > LONGEST:
                warnings.warn(f"Only {LONGEST} tokens of this prompt are read: {quoted(prompt[:80])}...", stacklevel=2)
        hidden = encoder(input_ids=batch["input_ids"].to(self.device), attention_mask=mask.to(self.device))
        rows = hidden.last_hidden_state.float()[mask.bool().to(self.device)]  # [sum(lengths), text_width]
        return TextBatch(rows, tuple(mask.sum(1).tolist()))


def checked(prompts: Sequence[str]) -> list[str]:
    """The prompts as a list; a bare string, which would be read letter by letter, and no prompt at all are errors."""
    if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise VarlabError(f"Give a list of prompts, for example ['a red star'], not {quoted(prompts)}.")
    return list(prompts)


def random_text(prompts: Sequence[str], width: int, rows: int = 32, seed: int = 0) -> TextBatch:
    """Features drawn from N(0, 1), [len(prompts) * rows, width]: for runs whose weights are random as well.

    They depend on seed and prompt alone, so a prompt has the same features in every batch. They mean nothing.
    """
    if rows < 1 or width < 1:
        raise VarlabError(f"Random text needs at least one row and one channel, not {rows} x {width}.")
    features = []
    for prompt in checked(prompts):
        number = int.from_bytes(hashlib.sha256(f"{seed}/{prompt}".encode()).digest()[:7], "big")
        features.append(torch.randn(rows, width, generator=torch.Generator().manual_seed(number)))
    return TextBatch(torch.cat(features), (rows,) * len(features))


class RandomText:
    """``random_text`` as an encoder; ``label`` says so wherever a run is described."""

    def __init__(self, width: int, rows: int = 32, seed: int = 0, device: str = "cpu") -> None:
        self.width, self.rows, self.seed, self.device = width, rows, seed, device
        self.label = f"random text features (seed {seed})"

    def __call__(self, prompts: Sequence[str]) -> TextBatch:
        text = random_text(prompts, self.width, self.rows, self.seed)
        return TextBatch(text.features.to(self.device), text.lengths)


TextEncoder = Callable[[Sequence[str]], TextBatch]


def choose(
    text: str | TextEncoder | None, width: int, default: str, device: str, precision: str, seed: int
) -> TextEncoder:
    """An encoder from its name: "random", "flan-t5-xl", the folder or hub id of one; ``default`` for None."""
    if callable(text):
        return text
    name = text or default
    if name == "random":
        return RandomText(width, seed=seed, device=device)
    return FlanT5("google/flan-t5-xl" if name == "flan-t5-xl" else name, device, precision)
