"""A log under one's hands in a notebook: widgets over the figure functions, a still picture where there are none."""

from base64 import b64encode
from collections.abc import Callable
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varlab.analysis.decisions import pruned_stages, pruning_method
from varlab.analysis.logs import Images, Log, as_log, has_images, prompt_count, stage_count
from varlab.errors import VarlabError, quoted
from varlab.figures.branches import HIDDEN, branch_divergence
from varlab.figures.decisions import keep_maps
from varlab.figures.maps import energy_maps, token_maps
from varlab.figures.redundancy import step_redundancy
from varlab.figures.spectra import high_frequency_share, residual_spectrum
from varlab.figures.style import figure_of
from varlab.figures.tokens import block_token_mse

Drawn = Callable[..., Axes | Figure]
SHOWN = 130  # pixels of a page an inch of the figure
FINER = 2  # of its own pixels to one of the page, so that it is sharp on every screen


class Explorer:
    """What ``explore`` gives: the choices as widgets, and the figure under them.

    A front end without widgets, a saved notebook and a page show the figure as it stands.
    """

    def __init__(self, run: Any, images: Images = None) -> None:
        self.log, pictures = as_log(getattr(run, "log", run)), getattr(run, "images", images)
        self.drawings = _drawings(self.log, pictures)
        if not self.drawings:
            raise VarlabError("This log holds nothing to explore: draw it with probes, or with a method that decides.")
        self.chosen = next(iter(self.drawings))
        self.options: dict[str, Any] = {}

    def choices(self) -> dict[str, list[Any]]:
        """What may be chosen for the present figure, by the name of its argument, the present choice first."""
        return self.drawings[self.chosen][1]

    def choose(self, figure: str, **options: Any) -> "Explorer":
        """Another figure, or other options of it. Errors: what ``choices`` does not list."""
        if figure not in self.drawings:
            raise VarlabError(f"There is no figure {quoted(figure)}; there are {', '.join(self.drawings)}.")
        known = self.drawings[figure][1]
        for name, value in options.items():
            if name not in known or value not in known[name]:
                raise VarlabError(f"{figure} has no {name} = {quoted(value)}; there are {known}.")
        self.chosen, self.options = figure, options
        return self

    def draw(self) -> Figure:
        """The figure of the present choices."""
        function, known = self.drawings[self.chosen]
        options = {name: values[0] for name, values in known.items()} | self.options
        several = {name: [options.pop(name)] for name in ("prompts", "stages", "blocks") if name in options}
        return figure_of(function(**options, **several))

    def picture(self) -> tuple[bytes, int]:
        """The figure as PNG, and the pixels of a page that it is wide: at any other width it would be blurred."""
        figure, stream = self.draw(), BytesIO()
        width = round(SHOWN * figure.get_figwidth())
        figure.savefig(stream, format="png", dpi=FINER * width / figure.get_figwidth())
        plt.close(figure)
        return stream.getvalue(), width

    def widgets(self) -> Any:
        """The controls and the picture as one widget. Errors: ipywidgets is not installed."""
        import ipywidgets

        whole: Any = {"style": {"description_width": "initial"}, "layout": {"width": "max-content"}}  # no name is cut
        image = ipywidgets.Image(format="png", layout={"align_self": "flex-start"})  # not as wide as the page
        panel = ipywidgets.HBox(layout={"flex_flow": "row wrap"})
        figure = ipywidgets.Dropdown(options=list(self.drawings), value=self.chosen, description="figure", **whole)

        def show(_: Any = None) -> None:
            self.choose(figure.value, **{control.description: control.value for control in panel.children})
            image.value, width = self.picture()
            image.layout.width = f"{width}px"

        def rebuild(_: Any = None) -> None:
            self.choose(figure.value)
            panel.children = [
                ipywidgets.Dropdown(options=values, value=values[0], description=name, **whole)
                for name, values in self.choices().items()
            ]
            for control in panel.children:
                control.observe(show, "value")
            show()

        figure.observe(rebuild, "value")
        rebuild()
        return ipywidgets.VBox([figure, panel, image])

    def _repr_html_(self) -> str:
        about = escape(f"{self.chosen} of {self.log.attrs.get('model', 'a log')}")
        data, width = self.picture()
        return f'<img alt="{about}" width="{width}" src="data:image/png;base64,{b64encode(data).decode()}">'

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle = {"text/plain": repr(self), "text/html": self._repr_html_()}
        try:
            return {**self.widgets()._repr_mimebundle_(), **bundle}
        except ImportError:
            return bundle


def explore(run: Any | Log | Path | str, images: Images = None) -> Explorer:
    """Look around in a run: its figures with their prompts, stages, sublayers and guidance rows to choose.

    Parameters
    ----------
    run
        What ``vl.sample`` gives, a log, or the folder of one.
    images
        The pictures, or their folder, where the log does not know them.

    Returns
    -------
    Explorer
        Widgets in a notebook.

    Examples
    --------
    >>> vl.explore(vl.log("nano-infinity", "scenes", n=8))
    """
    return Explorer(run, images)


def _drawings(log: Any, images: Images) -> dict[str, tuple[Drawn, dict[str, list[Any]]]]:
    """By name: the function, bound to the log, and what may be chosen for its arguments."""
    groups, found = set(map(str, log.children)), {}
    prompts = list(range(prompt_count(log)))

    def add(group: str, function: Drawn, pictures: bool = False, **choices: list[Any]) -> None:
        if group in groups and (not pictures or has_images(log, images)):
            given = {"images": images} if pictures else {}
            found[function.__name__] = (lambda **options: function(log, **given, **options)), choices

    add("residual-spectrum", high_frequency_share)
    add("residual-spectrum", residual_spectrum, source=["preview change", "contribution", "residual", "canvas"])
    add("residual-spectrum", energy_maps, pictures=True, prompts=prompts)
    rows = ["both", "conditional", "unconditional"]
    add("token-mse", block_token_mse, sublayer=["block", "attention", "cross", "ffn"], guidance_row=rows)
    stages = list(range(stage_count(log), 1, -1)) if "token-mse" in groups else []  # there is most to see in the last
    add("token-mse", token_maps, pictures=True, prompts=prompts, stages=stages, guidance_row=rows)
    add("branch-divergence", branch_divergence, measure=list(HIDDEN))
    add("step-redundancy", step_redundancy)
    try:
        if pruned_stages(log):
            add(pruning_method(log), keep_maps, pictures=True, prompts=prompts)
    except VarlabError:
        pass  # no method of this log left tokens out
    return found
