"""What a report reads besides its inputs, as digests: the models that they name, and files."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from varlab.weights import registry
from varlab.weights.content import digest_of_files
from varlab.weights.embedded import data_folder
from varlab.weights.zoo import files_of

OWN = ("run_folder", "report_folder")  # that a report fills itself: a run knows what it is of


def digests(inputs: Mapping[str, Any]) -> dict[str, str]:
    """By the words of the inputs that name them; of all that ships where no model is named."""
    words = dict.fromkeys(word for name, value in inputs.items() if name not in OWN for word in _words(value))
    models = [registry.MODELS[word] for word in words if word in registry.MODELS]
    found = {entry.name: digest_of_files([*{data_folder() / entry.name, *files_of(entry)}]) for entry in models}
    found = found or {"all": digest_of_files([data_folder()])}
    return found | {word: digest for word in words if word not in found and (digest := digest_of_files([Path(word)]))}


def _words(value: Any) -> Iterator[str]:
    """Texts, also those in lists, and what in them a path may be: a spec names files too."""
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str):
            yield from (text, *(word for word in re.split(r"[\s:=,+]+", text) if Path(word).suffix))
