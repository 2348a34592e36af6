"""SparseVAR's observations, checked on the log of a dense run.

Verdicts rest on 95 % bootstrap intervals over prompts; what counts as much or little is a constant below and stands
in the finding. Early stages are the first half, late stages the last quarter (5 and 6 of 6, 11 to 13 of 13).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from varlab.analysis.controls import energy_edges, token_edges
from varlab.analysis.logs import Images, Log, has_images, pick, prompt_count, variable
from varlab.analysis.tokens import edge_correlations
from varlab.claims.parts import early, early_name, late, late_name, of_log
from varlab.claims.rules import enough, measured
from varlab.claims.verdict import Number, Outcome, Verdict

EVEN = 0.25  # share of energy on a quarter of the cells when it does not care for edges
MOST = 0.5  # "concentrate": more than half
DIFFERENT = 0.1  # smallest difference of two rank correlations worth naming
ENERGIES = {"contribution": "what a stage adds to the latent canvas", "preview change": "the change of the preview"}


# --- observation 1 ------------------------------------------------------------------------------------------


def residuals_on_edges(log: Log, images: Images = None) -> Verdict:
    """Late residuals, by what they add to the latent canvas: more than half on the edges' quarter of the cells?"""
    return _on_edges(log, "At high-resolution stages residuals concentrate on edges", "contribution", images)


def changes_on_edges(log: Log, images: Images = None) -> Verdict:
    """The same of what late stages change in the decoded preview.

    "Holds" also needs more than with the edges of other prompts' images, where the images are found.
    """
    return _on_edges(log, "At high-resolution stages the picture changes on edges", "preview change", images)


def _on_edges(log: Log, claim: str, source: str, images: Images) -> Verdict:
    shares = pick(variable(log, "residual-spectrum", "concentration"), spread=source)
    seen = has_images(log, images)
    pairs = energy_edges(log, images, source) if seen and prompt_count(log) > 1 else None
    own = measured("late share on edges", late(log, shares), reference=EVEN)
    before = measured("early share", early(log, shares))
    finding = (
        f"In {late_name(log)}, {own} of the energy of {ENERGIES[source]} falls on the quarter of the cells with the "
        f"strongest edges, where an even spread puts {EVEN:g}; in {early_name(log)}, {before}."
    )
    numbers, beyond = [own], None
    if pairs is not None:
        beyond = measured("minus that with another prompt's edges", late(log, pairs["own"]) - late(log, pairs["other"]))
        numbers.append(beyond)
        more = f"That is {beyond} more than" if beyond.estimate >= 0 else f"It differs by {beyond} from that"
        finding += f" {more} with another prompt's edges (control; on maps of at most 32 cells a side)."
    elif seen:
        finding += " One prompt has no other's edges to be held against (control)."
    outcome, reason = _concentrated(own, beyond)
    return of_log(log, f"{claim} (SparseVAR, observation 1)", outcome, finding, reason, numbers)


def _concentrated(own: Number, beyond: Number | None) -> tuple[Outcome, str]:
    if not enough(own):
        return Outcome.TOO_FEW, ""
    if own.high <= EVEN:
        return Outcome.FAILS, "That is no more than an even spread gives."
    if beyond is not None and enough(beyond) and beyond.high <= 0:
        return Outcome.FAILS, "Other pictures' edges explain it as well."
    if own.low <= EVEN:
        return Outcome.WIDE, "The interval includes the even spread."
    if beyond is not None and not beyond.low > 0:
        return Outcome.PARTLY, "Place explains it as well as edges."
    if own.low > MOST:
        return Outcome.HOLDS, ""
    return Outcome.PARTLY, "That is more than an even spread gives, but not clearly more than half."


# --- observation 2 ------------------------------------------------------------------------------------------


def blocks_differ(log: Log, images: Images = None, guidance_row: str = "both") -> Verdict:
    """Does one block change tokens on edges and another those of the background, at the late stages?

    The two blocks are chosen on a random half of the prompts and measured on the others, so that the choice does
    not flatter them. "Holds" also needs both to go beyond the edges of other prompts' images, where these are found.
    """
    claim = "Blocks focus on different regions: one on edges, another on the background (SparseVAR, observation 2)"
    values = edge_correlations(log, guidance_row=guidance_row)
    table = late(log, values)  # [n, block]
    if len(table) < 4 or np.isnan(table).all():
        finding = "Blocks are chosen on half of the prompts: at least 4 are needed."
        return of_log(log, claim, Outcome.TOO_FEW, finding)
    choosing, measuring = halves(len(table))
    means = np.nanmean(table[choosing], 0)
    edge, ground = int(np.nanargmax(means)), int(np.nanargmin(means))
    chosen, block = table[measuring], values["block"].values
    names = [f"block {block[edge]}", f"block {block[ground]}"]
    gap = measured(f"{names[0]} minus {names[1]}", chosen[:, edge] - chosen[:, ground], DIFFERENT)
    signs = [measured(names[0], chosen[:, edge]), measured(f"{names[1]}, sign reversed", -chosen[:, ground])]
    finding = (
        f"Correlation with edges in {late_name(log)}: {names[0]} {signs[0]}, {names[1]} "
        f"{measured(names[1], chosen[:, ground])}, difference {gap}; chosen on {len(choosing)} prompts, measured on "
        f"{len(measuring)}."
    )
    if has_images(log, images):
        pairs = token_edges(log, images, guidance_row=guidance_row)
        beyond = (late(log, pairs["own"]) - late(log, pairs["other"]))[measuring]
        more, other = "more than with another prompt's edges", "that with another prompt's edges"
        first, second = measured(f"{names[0]} minus {other}", beyond[:, edge]), measured("", beyond[:, ground])
        finding += f" That is {first} and {second} {more} (control)."
        signs += [first, measured(f"{names[1]} minus {other}, sign reversed", -beyond[:, ground])]
    outcome, reason = _opposed(gap, signs)
    return of_log(log, claim, outcome, finding, reason, (gap, *signs))


def halves(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two random halves, the same at each call. Not every second prompt: those would differ in category."""
    order = np.random.default_rng(0).permutation(n)
    return np.sort(order[: (n + 1) // 2]), np.sort(order[(n + 1) // 2 :])


def _opposed(gap: Number, signs: Sequence[Number]) -> tuple[Outcome, str]:
    if not enough(gap):
        return Outcome.TOO_FEW, ""
    if gap.high < gap.margin:
        return Outcome.NO_DIFFERENCE, f"No two blocks differ by {gap.margin:g} or more."
    if not gap.low > 0:
        return Outcome.WIDE, "The interval of the difference includes 0."
    if all(sign.low > 0 for sign in signs):
        return Outcome.HOLDS, ""
    return Outcome.PARTLY, "They differ, but not as edges against background."
