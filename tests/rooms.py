"""The rooms of the package in their one-way order, and what each is there for: a file imports only rooms above its own.

The rule test reads this list, and so do the documents.
"""

ROOMS = {
    "errors": "the one error that users see, with the fix in its text",
    "resources": "files that ship with the package",
    "writing": "files and folders written whole or not at all",
    "locks": "one process at a time in a folder",
    "weight_labels": "how weights are named in records",
    "markup": "text for Markdown and HTML",
    "specs": "methods and probes as text: read, written down, explained from the fields of their dataclasses",
    "outputs": "tables, JSON and pictures on disk, with how they were made",
    "context": "torch's and the process's settings during a run",
    "machine": "devices, memory and clocks",
    "schedules": "the grids of the stages",
    "measures": "spectra, picture metrics and statistics: pure functions of arrays, each defined once",
    "models": "the networks behind one face, and nothing else",
    "weights": "names to configurations, official files, minis, conversion, random weights, what fits in memory",
    "scenes": "procedural captioned scenes, their scorer, prompt sets",
    "engine": "the sampling loop, its narrow context, keys and values, plans, ledger, ways of execution",
    "accelerators": "methods, one file each",
    "probes": "what listens and logs, one file each",
    "runs": "inputs, one run, its folder, provenance",
    "analysis": "tables from logs and tables; neither torch nor matplotlib",
    "comparison": "methods interleaved on one engine, saved runs paired, folders of pictures",
    "claims": "published numbers, rules and verdicts; reads analysis, never figures",
    "reports": "notebooks run and rendered, their index",
    "figures": "tables in, axes out: draws and computes nothing",
    "training": "recipes and loops that train minis and exits",
    "evaluation": "scores of pictures against prompts and classes",
    "parity": "the engine held against golden runs of the official code",
    "timing": "latency, estimates and benchmarks",
    "sweeps": "many runs in shards on dask: planned, scheduled, resumed, merged",
    "studies": "calibration and exits",
    "api": "what ``import varlab`` offers",
    "cli": "the command line",
}
