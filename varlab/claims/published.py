"""What the papers report, with its source: facts on other models, other hardware and other timers.

These figures stand beside our tables, never in them. Source codes as in the papers' own documents: "paper" for a table
or text of the paper or its project site, "figure" for a value read off one, "inferred" for our inversion of published
latencies, "third party" for a re-run by others.
"""

import pandas as pd

from varlab.errors import unknown

SPARSEVAR, SKIPVAR, FASTVAR = "arXiv 2507.20454", "arXiv 2506.08908", "arXiv 2503.23367"
SKIPVAR_QUALITY = "SSIM {}, LPIPS {} to the baseline image, DrawBench"
TWO_B = "Infinity-2B, 1024 px"

# method, setting, model, speed-up, computed share, quality, hardware, source
_ROWS = (
    ("sparsevar", "tau .4, alpha 4, P 10", TWO_B, 1.05, 0.87, "GenEval .7260 -> .7303", "not stated",
     f"{SPARSEVAR}, paper (2.78 -> 2.64 s); share inferred"),
    ("sparsevar", "tau .5, alpha 4, P 10", TWO_B, 1.49, 0.49, "GenEval .7260 -> .7224", "not stated",
     f"{SPARSEVAR}, paper (2.78 -> 1.87 s); share inferred"),
    ("sparsevar", "tau .6, alpha 4, P 10", TWO_B, 1.89, 0.27, "GenEval .7260 -> .7204", "not stated",
     f"{SPARSEVAR}, paper (2.78 -> 1.47 s); share inferred"),
    ("sparsevar", "tau .7, alpha 4, P 10", TWO_B, 2.04, 0.21, "GenEval .7260 -> .7209", "not stated",
     f"{SPARSEVAR}, paper (2.78 -> 1.36 s); share inferred"),
    ("sparsevar", "tau .6", "HART-0.7B, 1024 px", 1.33, 0.48, "GenEval .5602 -> .5606", "not stated",
     f"{SPARSEVAR}, paper (1.32 -> .99 s); share inferred"),
    ("sparsevar", "tau .7", "HART-0.7B, 1024 px", 1.63, 0.20, "GenEval .5602 -> .5119", "not stated",
     f"{SPARSEVAR}, paper (1.32 -> .81 s); share inferred"),
    ("sparsevar", "tau .7", TWO_B, 2.11, None, "GenEval .7237 -> .7208, HPSv2 30.47 -> 29.76", "not stated",
     "DepthVAR, arXiv 2604.17286, third party (2706 -> 1281 ms)"),
    ("skipvar", "target .88", TWO_B, 1.58, None, SKIPVAR_QUALITY.format(".9092", ".0488"), "not stated",
     f"{SKIPVAR}, paper"),
    ("skipvar", "target .86", TWO_B, 1.70, None, SKIPVAR_QUALITY.format(".8924", ".0577"), "not stated",
     f"{SKIPVAR}, paper"),
    ("skipvar", "target .84", TWO_B, 1.81, None, SKIPVAR_QUALITY.format(".8793", ".0646"), "not stated",
     f"{SKIPVAR}, paper"),
    ("skipvar", "hybrid, no decision model", TWO_B, 2.62, None, SKIPVAR_QUALITY.format(".7915", ".1075"),
     "not stated", f"{SKIPVAR}, paper"),
    ("skipvar", "target .84", TWO_B, 1.91, None, "GenEval .69 -> .67", "NVIDIA L40",
     "ToProVAR, arXiv 2602.22948, third party (2.10 -> 1.10 s)"),
    ("fastvar", "40, 50, 100, 100 %", TWO_B, 2.75, None, "GenEval .73 -> .72", "RTX 3090",
     f"{FASTVAR}, figure (2.61 -> .95 s)"),
    ("fastvar", "40, 50, 100, 100 %", TWO_B, 2.53, None, SKIPVAR_QUALITY.format(".6919", ".2042"), "not stated",
     f"{SKIPVAR}, third party"),
    ("fastvar-all-scales", "50, 75 %", "HART-0.7B, 1024 px", 1.51, None, "GenEval .51 -> .51", "RTX 3090",
     f"{FASTVAR}, figure (.95 -> .63 s)"),
    ("fastvar-all-scales", "no scale dropped", "Infinity-8B, 1024 px", 1.14, None, "PSNR 17.4 dB", "not stated",
     "SparVAR, arXiv 2602.04361, third party"),
)  # fmt: skip
COLUMNS = ["method", "setting", "model", "speed-up", "computed", "quality", "hardware", "source"]


def published(*methods: str) -> pd.DataFrame:
    """One row a reported setting. ``computed``: share of the tokens of the pruned stages. Empty: not reported."""
    known = list(dict.fromkeys(row[0] for row in _ROWS))
    for method in methods:
        if method not in known:
            raise unknown("method with published figures", method, known)
    rows = [row for row in _ROWS if row[0] in methods or not methods]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    for name in ("speed-up", "computed"):
        frame[name] = frame[name].map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    return frame


def published_exits() -> pd.DataFrame:
    """FreqExit's table 1: VAR-d20, ImageNet at 256 pixels, an RTX 4090, 50 000 images. Other model, data, measures."""
    columns = ("method", "exits", "speed-up", "GFLOPs", "FID", "IS", "precision", "recall")
    rows = (
        ("VAR-d20", "20", 1.00, 1879, 2.78, 252, 0.84, 0.55),
        ("LayerSkip a", "16", 1.27, 1664, 3.25, 253, 0.80, 0.58),
        ("LayerSkip b", "16x5/12x5", 1.30, 1466, 3.99, 251, 0.78, 0.57),
        ("LayerSkip c", "12", 1.63, 1448, 4.78, 250, 0.76, 0.60),
        ("FreqExit a", "16", 1.27, 1664, 2.72, 252, 0.81, 0.55),
        ("FreqExit b", "16x5/12x5", 1.30, 1466, 2.90, 250, 0.78, 0.57),
        ("FreqExit c", "12", 1.63, 1448, 3.16, 251, 0.71, 0.57),
        ("FreqExit d", "10", 2.00, 1341, 3.58, 251, 0.73, 0.56),
    )
    return pd.DataFrame(rows, columns=list(columns))
