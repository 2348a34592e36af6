"""HART's text encoder: the language half of a Qwen2-VL as the official program runs it, behind its system prompt.

The prompt that introduces every user's prompt is part of the official code, not of varlab: it is read from the user's
own copy and known by its hash. Source: the released code of HART (arXiv 2410.10812).
"""

import ast
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from varlab.errors import VarlabError, cause, quoted, unknown
from varlab.models.hart import HartText
from varlab.models.text import HUB_ID, TYPES, check_folder, checked, first_line, require_transformers

HUB = "mit-han-lab/Qwen2-VL-1.5B-Instruct"
CONSTANTS = "constants.py"  # the official file that holds the system prompt: hart/utils/constants.py
SYSTEM_PROMPT_SHA256 = "424f7aa7b1119f8ed1e329140e5941dfe308183bea0af59041dad5527a9b8f20"
OTHERWISE = "Or give text='features' to pass features in place of prompts, or text='random' where they need no meaning."


class QwenText:
    """Prompts -> the last hidden states of their 300 tokens, fp32, padding rows included, and which tokens are real.

    ``source``: a folder or a hub id; loaded at the first call (6 GB in fp32, half of that in bf16 or in fp16, which
    the official run uses). ``system_prompt``: the official constants.py, or a text file of the prompt alone; by
    default looked for in ``source`` and in ``folders``. A prompt is cut after ``length``
    tokens, with a warning. Every prompt runs on its own, so that its features are the same in any batch.
    """

    def __init__(
        self,
        source: str = HUB,
        length: int = 300,
        width: int = 1536,
        device: str = "cpu",
        precision: str = "fp32",
        system_prompt: str | Path | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        if precision not in TYPES:
            raise unknown("text precision", precision, TYPES)
        self.source, self.length, self.width = os.path.expanduser(source), length, width
        self.device, self.precision, self.system_prompt, self.folders = device, precision, system_prompt, folders
        self.label = f"{self.source} ({precision})"
        self.files = (Path(self.source),)
        self._parts: tuple[Any, Any, list[int]] | None = None

    def require(self) -> None:
        """Raises VarlabError when library, folder or system prompt are missing; loads nothing heavy."""
        require_transformers("Qwen2")
        hub = HUB_ID.fullmatch(self.source) and "/" in self.source
        if not os.path.exists(self.source) and not hub:
            raise VarlabError(
                f"The text encoder {self.source} does not exist. Give its folder or a Hugging Face id such as {HUB}. "
                f"{OTHERWISE}"
            )
        check_folder(self.source)
        self.prefix()

    def prefix(self) -> str:
        """The official system prompt, from the user's copy."""
        if self.system_prompt is not None:
            return read_system_prompt(Path(self.system_prompt).expanduser())
        places = [folder / CONSTANTS for folder in (Path(self.source), *self.folders)]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise VarlabError(
                f"HART's text encoder needs the system prompt of the official code: copy hart/utils/constants.py of "
                f"its repository to {places[-1].parent}. {OTHERWISE}"
            )
        return read_system_prompt(found)

    def parts(self) -> tuple[Any, Any, list[int]]:
        """The tokenizer, the language model and the tokens of the system prompt."""
        if self._parts is None:
            self.require()
            prefix = self.prefix()
            from transformers import AutoModel, AutoTokenizer

            try:
                tokenizer = AutoTokenizer.from_pretrained(self.source)
                encoder: Any = AutoModel.from_pretrained(self.source, torch_dtype=TYPES[self.precision])
            except Exception as error:  # transformers, safetensors and pickle have a class each for a damaged file
                raise VarlabError(
                    f"The text encoder {self.source} could not be loaded ({first_line(error)}). Give text= "
                    f"the folder of a downloaded {HUB}. {OTHERWISE}"
                ) from error
            found = getattr(encoder.config, "hidden_size", None)
            if found != self.width or tokenizer.pad_token_id is None:
                raise VarlabError(
                    f"{self.source} is not HART's text encoder: its features have {found} channels for {self.width}, "
                    f"its padding token is {tokenizer.pad_token_id}. Give the folder of {HUB}."
                )
            encoder = encoder.to(self.device).eval().requires_grad_(False)
            self._parts = tokenizer, encoder, list(tokenizer(prefix)["input_ids"])
        return self._parts

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str]) -> HartText:
        rows = [self._one(prompt) for prompt in checked(prompts)]
        return HartText.join(rows)

    def _one(self, prompt: str) -> HartText:
        tokenizer, encoder, prefix = self.parts()
        if (count := len(tokenizer(prompt)["input_ids"])) > self.length:
            warnings.warn(
                f"Only the first {self.length} of {count} tokens of this prompt are read: {quoted(prompt[:80])}...",
                stacklevel=4,
            )
        tokens = tokenizer(prompt, max_length=self.length, padding="max_length", truncation=True, return_tensors="pt")[
            "input_ids"
        ]
        mask = tokens != tokenizer.pad_token_id  # [1, T]
        before = torch.tensor([prefix], dtype=tokens.dtype)
        ids, seen = torch.cat([before, tokens], 1), torch.cat([torch.ones_like(before), mask.long()], 1)
        # Positions run over prefix and padding alike, as in the official run; they are not those of the mask.
        positions = torch.arange(ids.shape[1])[None]
        out = encoder(
            input_ids=ids.to(self.device),
            attention_mask=seen.to(self.device),
            position_ids=positions.to(self.device),
            use_cache=False,
        )
        return HartText(out.last_hidden_state[:, -self.length :].float(), mask.to(self.device))


def read_system_prompt(path: Path) -> str:
    """The official system prompt in a Python or text file, which is never run; known by its hash alone.

    Raises VarlabError for a file that does not hold it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise VarlabError(
            f"{path} cannot be read ({cause(error)}). Give the official hart/utils/constants.py."
        ) from error
    for candidate in (text, *_strings(text)):
        if hashlib.sha256(candidate.encode()).hexdigest() == SYSTEM_PROMPT_SHA256:
            return candidate
    raise VarlabError(
        f"{path} does not hold the official system prompt of HART (sha256 {SYSTEM_PROMPT_SHA256[:12]}...). Copy "
        "hart/utils/constants.py of the official repository unchanged."
    )


def _strings(text: str) -> Iterator[str]:
    """The strings of a Python source, concatenated ones whole; nothing of what is no Python."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
