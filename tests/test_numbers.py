"""A few numbers of the official code: encoder, sampler and positions can fail without golden files."""

import numpy as np
import torch

from varlab import schedules
from varlab.models.infinity_model import bit_probability
from varlab.models.rotary import rotary_indices, rotary_table
from varlab.models.tokenizers.bsq import BSQConfig, BSQTokenizer
from varlab.parity.weights import fill, image, infinity_rule


def bits_of(text: str) -> list[int]:
    return [int(digit) for digit in text]


def test_the_tokenizer_encodes_quantises_and_decodes() -> None:
    """Official BSQ-VAE with deterministic weights (seed 301), a 48 x 48 image, six stages up to 12 x 12."""
    tokenizer = BSQTokenizer(BSQConfig(bits=8, stride=4, channels=32, multipliers=(1, 1, 2), blocks=1))
    fill(tokenizer, 301, infinity_rule)
    grids = [(side, side) for side in (1, 2, 4, 6, 8, 12)]
    with torch.inference_mode():
        bits, canvas, latent = tokenizer.eval().encode(image(301, 1, 48, 48), grids)
        decoded = tokenizer.decode(canvas)
    expected = [
        [-0.15466, -0.40077, -0.50892],
        [0.17484, -0.18906, 0.20834],
        [0.33943, 0.57455, 0.65234],
        [0.43324, 0.36371, 0.14438],
    ]
    assert np.allclose(latent[0, :4, ::5, 3], expected, atol=2e-5)
    stage_3 = "0000101011111010001100101011100000011110100001101011100010010000"
    stage_6 = "1000010101010110011100111011011100111000110111101001110001110011"
    assert bits[2].flatten()[:64].int().tolist() == bits_of(stage_3)
    assert bits[5].flatten()[-64:].int().tolist() == bits_of(stage_6)
    row = [
        [0.02185, 0.11082, 0.19704, -0.13143],
        [0.53615, 0.16389, 0.47583, -0.92643],
        [0.64035, 0.85353, 0.00237, 1.0],
    ]
    assert np.allclose(decoded[0, :, 7, ::12], row, atol=3e-5)


def test_bit_probabilities_after_top_k_and_top_p() -> None:
    logits = torch.tensor(
        [
            [3.411569, 1.349957],
            [-1.259816, -1.357847],
            [-0.431960, -5.296131],
            [2.059508, -3.063884],
            [-1.030252, 1.825868],
            [0.176299, -0.627659],
        ]
    )
    expected = {
        (900, 0.97): [0.112884, 0.475512, 0.0, 0.0, 0.945634, 0.309180],
        (1, 0.0): [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        (0, 0.9): [0.112884, 0.475512, 0.0, 0.0, 1.0, 0.309180],
        (0, 0.5): [0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    for (top_k, top_p), values in expected.items():
        assert np.allclose(bit_probability(logits, top_k, top_p), values, atol=1e-6), (top_k, top_p)


def test_rotary_positions_of_two_templates() -> None:
    """Rows of the first four stages in units of the 1M grid, and the sums of the table's cosines per stage."""
    expected = {
        1.5: ([0, 0, 39, 0, 26, 52, 0, 13, 26, 39, 52, 65], [64.0, 196.7881, 283.8796, 984.1878]),
        0.571: ([0, 0, 24, 0, 16, 32, 0, 12, 24, 36, 0, 8], [64.0, 203.2141, 409.4194, 1150.6882]),
    }
    for ratio, (rows, sums) in expected.items():
        schedule = schedules.infinity("1M", ratio)
        first_of_row = []
        for start, (height, width) in zip((0, *schedule.ends), schedule.grids, strict=False):
            index = rotary_indices(schedule)[start : start + height * width, 0]
            first_of_row += index.view(height, width)[:, 0].int().tolist()
        assert first_of_row[: len(rows)] == rows
        stages = rotary_table(schedule, 128)[..., 0].double().split(schedule.lengths)
        assert np.allclose([float(stage.sum()) for stage in stages[:4]], sums, atol=1e-3)
