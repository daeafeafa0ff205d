"""The study of the paper from finished cells: verdicts, pictures, tables of numbers, and the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cosim.agents.study.claims import CLAIMS, Claim
from cosim.agents.study.data import Results
from cosim.agents.study.exhibits import Exhibit, exhibit
from cosim.agents.study.measures import verdict_on
from cosim.agents.study.page import Chapter, Statement, WorldVerdict, counted, page
from cosim.agents.study.plan import PARTS, WORLDS, Actors, Tier
from cosim.agents.study.statistics import LEVEL, RESAMPLES
from cosim.agents.study.verdicts import NOT_RUN, VERDICTS, Judged, Verdict
from cosim.campaign.cells import CellState
from cosim.campaign.files import CELLS
from cosim.campaign.runner import said_of
from cosim.digest import Digest, Table
from cosim.progress import working
from cosim.tables.files import write_table

PAGE, FIGURES, NUMBERS, VERDICT_FILE = "study.html", "figures", "data", "verdicts.csv"
FORMATS = ("svg", "png")
RULES_OF_JUDGEMENT = (
    "Every verdict is computed, by rules that were written before anything was run. A claim is split into figures per "
    "seed; differences are taken seed by seed, at the same arrivals.",
    f"All seeds are shown, with their interquartile mean and a {100 * LEVEL:.0f} % bootstrap interval ({RESAMPLES} "
    "draws). With three seeds the interval is their whole range, so that a sign is found only where all three agree.",
    "Where a claim depends on a choice that the paper leaves open (load, constant intensities, arrivals with more "
    "sites), it is judged in a world for each choice.")


@dataclass(frozen=True, slots=True)
class Ruling:
    """A claim, who played the paper's parts, in which world, and the verdict."""

    claim: Claim
    actors: Actors
    world: str
    verdict: Verdict


def rulings(results: Results, parts: Sequence[str]) -> list[Ruling]:
    """The verdicts on all claims of some parts. What no policy plays a part in is judged once."""
    return [Ruling(claim, actors, world, verdict_on(claim, results, actors, world)) for claim in CLAIMS
            if claim.where in parts for k, actors in enumerate(results.tier.actors) for world in claim.worlds
            if not (k and claim.no_policy)]


def results_of(states: Mapping[str, CellState], out: Path, tier: Tier) -> Results:
    """What finished cells of a campaign in `out` returned."""
    return Results({key: state.result for key, state in states.items() if state.result is not None}, out / CELLS, tier)


def write_paper(states: Mapping[str, CellState], parts: Sequence[str], tier: Tier, out: Path, command: str
                ) -> tuple[Path, list[Ruling]]:
    """Write page, pictures, tables and verdicts into `out`; returns the page and the verdicts.

    Without matplotlib (extra `plot`) there are no pictures, and the page has a line about it.
    """
    results = results_of(states, out, tier)
    ruled = rulings(results, parts)
    (out / NUMBERS).mkdir(exist_ok=True)
    write_table(out / VERDICT_FILE, verdict_columns(ruled))
    warnings, chapters = said_of(states), []
    drawn = find_spec("matplotlib") is not None
    if not drawn:
        warnings.append("matplotlib is not installed (extra 'plot'), so that there are no pictures; the tables and the "
                        "files of numbers are whole")
    with working("drawing", len(parts)) as progress:
        for k, part in enumerate(part for part in PARTS if part in parts):
            chapters.append(_chapter(exhibit(part, results), [r for r in ruled if r.claim.where == part], out, drawn))
            progress.at(k + 1)
    chapters.append(_worlds())
    text = page("The study, reproduced or refuted", (
        f"Tier '{tier.name}': {tier.about}{f', preset {tier.preset}' if tier.episodes else ''}. {tier.seeds} seeds. "
        "Beside each claim of the paper stands what was found here.",
        f"Made by: {command}"), warnings, counted((r.verdict.verdict for r in ruled), VERDICTS), chapters,
        f"Made by cosim study paper. {versions_said(states)} Nothing on this page is loaded from elsewhere.")
    made = out / PAGE
    made.write_text(text, encoding="utf-8", newline="\n")
    return made, ruled


def _chapter(made: Exhibit, ruled: Sequence[Ruling], out: Path, drawn: bool) -> Chapter:
    """One part: its files written, its claims with their verdicts."""
    files = [f"{NUMBERS}/{made.part}.csv"]
    if made.numbers and any(made.numbers.values()):
        write_table(out / files[0], made.numbers)
    else:
        files = []
    pictures = []
    for name, draw in made.pictures.items() if drawn else ():
        (out / FIGURES).mkdir(exist_ok=True)
        draw(out / FIGURES / f"{name}.svg", FORMATS)
        pictures.append((out / FIGURES / f"{name}.svg", f"{made.title}, {name}"))
        files += [f"{FIGURES}/{name}.{ending}" for ending in FORMATS]
    statements = []
    for claim in dict.fromkeys(r.claim.key for r in ruled):
        of = [r for r in ruled if r.claim.key == claim]
        several = len({r.actors.label for r in ruled}) > 1
        statements.append(Statement(_sentence(of[0].claim.about), of[0].claim.printed, [
            WorldVerdict(f"{r.world}, {r.actors.label}" if several and not r.claim.no_policy else r.world,
                         r.verdict.verdict, _says(r.verdict)) for r in of]))
    return Chapter(made.part, made.title, "", statements, made.shown, pictures, files)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _says(verdict: Verdict) -> list[str]:
    """What a verdict rests on, a line per figure."""
    lines = [verdict.why] if verdict.why else []
    return lines + [f"{judged.part.what}: {_value(judged)}" + (f" - {judged.verdict}" if len(verdict.parts) > 1 else "")
                    for judged in verdict.parts]


def _value(judged: Judged) -> str:
    over, unit = judged.spread, judged.part.unit and f" {judged.part.unit}"
    if judged.part.exact:
        return f"{over.iqm:.4g}{unit}"
    return (f"{over.iqm:.3g}{unit} [{over.low:.3g}, {over.high:.3g}]; seeds "
            + ", ".join(f"{value:.3g}" for value in over.values))


def verdict_columns(ruled: Sequence[Ruling]) -> dict[str, list[object]]:
    """The verdicts as a tidy table: a row per figure of a claim, one for a claim without any."""
    rows = list(_verdict_rows(ruled))
    names = ("claim", "part", "claimed_in_our_words", "printed", "who", "world", "verdict", "why", "figure",
             "unit", "claimed", "iqm", "low", "high", "seeds", "figure_verdict")
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in names}


def _verdict_rows(ruled: Sequence[Ruling]) -> Iterator[tuple[object, ...]]:
    for r in ruled:
        who = "-" if r.claim.no_policy else r.actors.label
        head = (r.claim.key, r.claim.where, r.claim.about, r.claim.printed, who, r.world, r.verdict.verdict,
                r.verdict.why)
        if not r.verdict.parts:
            yield (*head, "", "", "", "", "", "", "", "")
        for judged in r.verdict.parts:
            part, over = judged.part, judged.spread
            claimed = {1: "above 0", -1: "below 0"}.get(part.sign, f"{part.band[0]:g} to {part.band[1]:g}")
            yield (*head, part.what, part.unit, claimed, f"{over.iqm:.6g}", f"{over.low:.6g}", f"{over.high:.6g}",
                   " ".join(f"{value:.6g}" for value in over.values), judged.verdict)


def verdict_table(ruled: Sequence[Ruling]) -> Table:
    """One line per claim and player: the verdict in each world."""
    rows = []
    for key, label in dict.fromkeys((r.claim.key, r.actors.label) for r in ruled):
        of = [r for r in ruled if (r.claim.key, r.actors.label) == (key, label)]
        alike = {r.verdict.verdict for r in of}
        verdict = of[0].verdict.verdict if len(alike) == 1 else "; ".join(f"{r.world}: {r.verdict.verdict}" for r in of)
        rows.append((of[0].claim.about, of[0].claim.where, "-" if of[0].claim.no_policy else label, verdict))
    return Table("Claims of the paper", ("claim", "where", "who", "verdict"), rows,
                 "one verdict: the same in every world in which the claim was judged")


def _worlds() -> Chapter:
    rows = [(name, world.scenario, world.about, " ".join(f"{k}={v:.4g}" for k, v in world.settings.items()) or "-")
            for name, world in WORLDS.items()]
    return Chapter("how", "How it was judged", notes=list(RULES_OF_JUDGEMENT), tables=[
        Table("Worlds", ("world", "scenario", "what it is", "set"), rows),
        Table("Verdicts", ("verdict", "what it means"), list(VERDICTS.items()))])


def versions_said(states: Mapping[str, CellState]) -> str:
    """The versions that the cells were computed with."""
    found = next((state.versions for state in states.values() if state.state == "done"), {})
    return ", ".join(f"{name} {version}" for name, version in sorted(found.items())) + "." if found else ""


def digest_of_study(ruled: Sequence[Ruling], states: Mapping[str, CellState]) -> Digest:
    """What the command prints: the verdicts, how many of each, and what went wrong."""
    digest = Digest([verdict_table(ruled)], said_of(states))
    for verdict, number, _ in counted((r.verdict.verdict for r in ruled), VERDICTS):
        digest.figures[f"verdicts: {verdict}"] = float(number)
    if any(r.verdict.verdict == NOT_RUN for r in ruled):
        digest.warnings.append("claims that were not run compare trained teams (tier short or full), or need cells "
                               "that were not asked for (--only) or failed")
    return digest
