"""The benchmarks by name. A new one is a subclass of ``Benchmark`` in a file here, and a line below."""

from varlab.evaluation.benchmarks.distances import Fid, Mjhq
from varlab.evaluation.benchmarks.dpg import Dpg
from varlab.evaluation.benchmarks.geneval import GenEval
from varlab.evaluation.benchmarks.preference import Hps, ImageReward
from varlab.evaluation.benchmarks.scenes import Frechet, Scenes
from varlab.evaluation.contract import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    kind.name: kind() for kind in (GenEval, Dpg, Hps, ImageReward, Fid, Mjhq, Scenes, Frechet)
}
