"""What test_parity.py and test_parity_files.py share."""

from tests.golden_files import HERE

MODEL, VAE = HERE / "infinity_C_small.npz", HERE / "infinity_vae_sq.npz"
