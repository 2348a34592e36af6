"""Models for benchmarks: random weights of any depth and width on a released schedule, with a decoder that is cheap."""

from varlab import schedules
from varlab.context import fixed_context, shapes_only
from varlab.errors import VarlabError
from varlab.models.guidance import Settings
from varlab.models.infinity import InfinityConfig, InfinityTransformer
from varlab.models.infinity_model import Infinity
from varlab.models.text import RandomText
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.models.tokenizers.maps import channels_last
from varlab.models.widened import BF16_WEIGHTS, widen
from varlab.weights.initialise import randomise

HEAD = 128  # channels of a head, as in Infinity-2B and 8B
TOKENIZER = BSQConfig(bits=32, channels=8, blocks=1, norm_groups=4)


@fixed_context()
def random_infinity(
    depth: int = 8, width: int = 1024, pixels: str = "1M", precision: str = "fp32", device: str = "cpu", seed: int = 0
) -> Infinity:
    """An Infinity with the heads of the 2B model; time grows with depth, the square of width, and the tokens.

    width: channels, a multiple of 128; others raise VarlabError. Its decoder is a sixteenth as wide as the released
    one, so that a run is the transformer's.
    """
    if width < HEAD or width % HEAD:
        raise VarlabError(f"A width of {width} channels is not a multiple of {HEAD}, the channels of a head.")
    config = InfinityConfig(depth, width, width // HEAD, TOKENIZER.bits, chunks=1)
    with shapes_only():
        transformer, tokenizer = InfinityTransformer(config), BSQTokenizer(TOKENIZER)
    for module in (transformer, tokenizer):
        randomise(module, seed, precision, device)
        module.eval().requires_grad_(False)
    if precision == BF16_WEIGHTS:
        widen(transformer)
    return Infinity(
        transformer,
        channels_last(tokenizer),
        schedules.infinity(pixels),
        RandomText(config.text_width, seed=seed, device=device),
        f"infinity-d{depth}-w{width}",
        f"random (seed {seed})",
        Settings(cfg=3.0),
    )
