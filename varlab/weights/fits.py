"""Whether the sizes of a model agree: tokenizer with transformer, schedule with both."""

from varlab.errors import VarlabError
from varlab.models.infinity import LEVELS, InfinityConfig
from varlab.models.infinity_model import check_growth
from varlab.models.tokenizers.bsq import BSQConfig
from varlab.models.tokenizers.vqvae import VQConfig
from varlab.models.var import VARConfig
from varlab.schedules import INFINITY_GRIDS, Schedule
from varlab.weights.official import ModelEntry


def check_fit(entry: ModelEntry, schedule: Schedule) -> None:
    """Refuse a schedule with more stages than level embeddings, and a tokenizer that cannot decode its grids."""
    config, images = entry.transformer, entry.tokenizer
    if isinstance(config, VARConfig) and isinstance(images, VQConfig):
        if (config.codes, config.code_width) != (images.codes, images.width):
            raise VarlabError(
                f"The transformer predicts {config.codes} codes of {config.code_width} channels, its tokenizer has "
                f"{images.codes} of {images.width}."
            )
        return
    if not isinstance(entry.transformer, InfinityConfig) or not isinstance(entry.tokenizer, BSQConfig):
        return  # HART is checked where it is built
    patch = 2 if entry.transformer.patchify else 1
    bits = entry.tokenizer.bits * patch**2
    if len(schedule) > LEVELS:
        raise VarlabError(f"{entry.name} knows {LEVELS} stages; {schedule.name} has {len(schedule)}.")
    if bits != entry.transformer.bits:
        raise VarlabError(f"{entry.name} predicts {entry.transformer.bits} bits a token, its tokenizer takes {bits}.")
    check_growth(schedule)
    # Released ones count tokens of 16 pixels; told by grids and the extent of positions, whatever the name.
    tables = INFINITY_GRIDS.values()
    released = any(schedule.extent == t[-1] and schedule.grids == t[: len(schedule)] for t in tables)
    if released and entry.tokenizer.stride * patch != 16:
        raise VarlabError(
            f"{schedule.name} counts tokens of 16 pixels; the tokenizer of {entry.name} makes them "
            f"{entry.tokenizer.stride * patch} pixels wide."
        )
