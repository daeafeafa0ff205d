"""How a claim is judged: by rules that stand here before anything was run, and by nothing else.

A claim has parts, each a figure per seed with what is claimed of it. A part with a claimed sign *holds* where the
bootstrap interval of its interquartile mean lies wholly on that side of zero and the mean is larger than what counts
as nothing; it is *reversed* where both are true of the other side, and *not seen* otherwise. A part with a claimed band
holds where the interval lies wholly inside, is reversed where it lies wholly outside, and not seen otherwise. A claim
holds if all its parts hold, is reversed if all are, and is not seen otherwise. Before that, a claim is *impossible
here* where the figure it orders is the same for everyone, and *not comparable* where what is printed cannot be
compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cosim.agents.study.statistics import SeedSpread, spread

HOLDS, REVERSED, NOT_SEEN = "holds", "reversed", "not seen"
IMPOSSIBLE, NOT_COMPARABLE, NOT_RUN = "impossible here", "not comparable", "not run"
VERDICTS = {
    HOLDS: "the interval over seeds lies on the claimed side (or inside the claimed band), beyond what counts as "
           "nothing",
    REVERSED: "it lies on the other side (or outside the band), as clearly",
    NOT_SEEN: "neither, or the parts of the claim disagree",
    IMPOSSIBLE: "what the claim orders is the same for every policy of this model; the reason stands beside it",
    NOT_COMPARABLE: "what is printed cannot be compared with a figure here; the reason stands beside it",
    NOT_RUN: "no verdict: cells that it needs were not asked for, need trained teams, or failed",
}
"""Verdict -> what it means."""


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """One figure of a claim.

    what     in words
    values   one per seed, in `unit`
    sign     +1 or -1, as claimed; 0: `band` is claimed instead
    band     (low, high) that the figure is claimed to lie in
    nothing  an absolute value up to which a figure with a sign counts as zero
    exact    nothing in it is drawn: one value is all there is to know. Of other figures one seed decides nothing
    """

    what: str
    values: tuple[float, ...]
    unit: str = ""
    sign: int = 0
    band: tuple[float, float] = (-math.inf, math.inf)
    nothing: float = 0.0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A part with its spread and its own verdict."""

    part: ClaimPart
    spread: SeedSpread
    verdict: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a claim: its parts, judged, and why where a verdict needs a reason."""

    verdict: str
    parts: tuple[Judged, ...] = ()
    why: str = ""


def judge(parts: Sequence[ClaimPart]) -> Verdict:
    """The verdict on a claim of these parts; `not run` where there are none or one has no value."""
    judged = tuple(_judged(part) for part in parts)
    found = {one.verdict for one in judged}
    if not judged or NOT_RUN in found:
        return Verdict(NOT_RUN, judged, "values are missing")
    return Verdict(found.pop() if len(found) == 1 else NOT_SEEN, judged)


def _judged(part: ClaimPart) -> Judged:
    over = spread(part.values)
    if math.isnan(over.iqm):
        return Judged(part, over, NOT_RUN)
    if math.isnan(over.low) and not part.exact:
        return Judged(part, over, NOT_SEEN)
    low, high = (over.iqm, over.iqm) if part.exact else (over.low, over.high)
    if part.sign:
        if abs(over.iqm) <= part.nothing or low <= 0.0 <= high:
            return Judged(part, over, NOT_SEEN)
        return Judged(part, over, HOLDS if (low > 0.0) == (part.sign > 0) else REVERSED)
    least, most = part.band
    if least <= low and high <= most:
        return Judged(part, over, HOLDS)
    return Judged(part, over, REVERSED if high < least or low > most else NOT_SEEN)
