"""From continuous actions to whole things: jobs per site, jobs per release time, GPUs in blocks.

Pure functions on short sequences (a handful of sites, classes or leads). They run many times a minute, where plain
Python is several times faster than small arrays.

Rows: A07, E29-31, I13, U09-11.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from cosim.errors import ModelError
from cosim.units import ROUNDING


def largest_remainder(total: int, shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `total` and differ from shares * total by less than 1 each; without memory.

    shares: non-negative, at least one > 0; they are normalised. Of equal fractions the lowest index wins. With
    `total` = 1 this is an argmax: the job goes to the largest share, every time. ValueError on a negative `total`.
    """
    floors, fractions, rest = _floors(total, shares)
    for k in _largest(fractions, fractions, rest):
        floors[k] += 1
    return floors


def largest_remainder_carry(
    total: int, shares: Sequence[float], carry: Sequence[float]
) -> tuple[list[int], list[float]]:
    """The same with error diffusion: remainders of earlier calls decide which index gets the rest.

    carry: per index, the units owed (> 0) or overpaid (< 0) so far; zeros at the start; sums to 0. Returns the
    whole numbers and the new carry (a fresh list). The numbers keep every property of `largest_remainder` (each
    within 1 of shares * total, so an index with share 0 gets nothing however much it is owed), and their running
    sums follow the running sums of shares * total: the difference is the carry, which stays bounded.
    """
    floors, fractions, rest = _floors(total, shares)
    owed = [c + f for c, f in zip(carry, fractions, strict=True)]
    for k in _largest(owed, fractions, rest):
        floors[k] += 1
        owed[k] -= 1.0
    return floors, owed


def _floors(total: int, shares: Sequence[float]) -> tuple[list[int], list[float], int]:
    """Floors and fractions of shares * total, and how many units the floors leave over."""
    if total < 0:
        raise ValueError(f"total = {total} to be shared out must be >= 0")
    whole = sum(shares)
    if not whole > 0.0 or min(shares) < 0.0:
        raise ValueError(f"shares = {list(shares)} must be >= 0 with at least one > 0")
    scale = total / whole
    floors, fractions = [], []
    for share in shares:
        quota = share * scale
        floor = int(quota + ROUNDING)
        fraction = quota - floor
        floors.append(floor)
        fractions.append(fraction if fraction > ROUNDING else 0.0)
    return floors, fractions, total - sum(floors)


def _largest(scores: Sequence[float], fractions: Sequence[float], count: int) -> list[int]:
    """The `count` indices with the highest score among those with a fraction; lowest index first on equal scores.

    Fractions sum to `count` and are each below 1, so there are always enough. Scores are compared to 9 digits: equal
    shares stay equal after a sum of rounded numbers.
    """
    if count == 0:
        return []
    return sorted((k for k, f in enumerate(fractions) if f), key=lambda k: -round(scores[k], 9))[:count]


def deal(counts: Sequence[int]) -> list[int]:
    """An order of service: index k occurs counts[k] times, evenly interleaved, e.g. (4, 2) -> 0 1 0 0 1 0.

    Jobs in arrival order go to these indices in turn, so that no site gets only the early or only the late ones of a
    minute. Occurrence j of index k stands at (j + 1/2) / counts[k]; lowest index first on equal places.
    """
    used = [k for k, n in enumerate(counts) if n]
    if len(used) == 1:
        return used * counts[used[0]]
    places: list[float] = []
    owners: list[int] = []
    for k in used:
        places += _places(counts[k])
        owners += [k] * counts[k]
    return [owners[slot] for slot in sorted(range(len(places)), key=places.__getitem__)]


@lru_cache(maxsize=1024)
def _places(count: int) -> tuple[float, ...]:
    """Where `count` occurrences stand between 0 and 1."""
    return tuple([(2 * j + 1) / (2 * count) for j in range(count)])


def gpu_blocks(shares: Sequence[float], capacity: int, block_sizes: Sequence[int]) -> list[int]:
    """GPUs per class: b * floor(share * capacity / b), (30) and (31); inference has blocks of its job's GPUs.

    shares: non-negative; a sum above 1 is scaled down to 1 (29). The sum of the result never exceeds `capacity`.
    """
    total = sum(shares)
    scale = capacity / total if total > 1.0 else capacity
    return [b * int(share * scale / b + ROUNDING) for share, b in zip(shares, block_sizes, strict=True)]


def project_simplex(raw: Sequence[float], eligible: Sequence[bool]) -> list[float]:
    """Any raw shares as shares on the simplex over the eligible indices (26).

    Negative and ineligible entries become 0, the others are divided by their sum; if nothing is left every eligible
    index gets the same. ModelError on a value that is not finite, ValueError if nothing is eligible.
    """
    kept = [float(x) if ok and x > 0.0 else 0.0 for x, ok in zip(raw, eligible, strict=True)]
    total = _finite_sum(kept, raw)
    if total == 1.0:
        return kept
    if total > 0.0:
        return [x / total for x in kept]
    count = sum(eligible)
    if count == 0:
        raise ValueError("no index is eligible; at least one must be")
    return [1.0 / count if ok else 0.0 for ok in eligible]


def project_shares(raw: Sequence[float]) -> list[float]:
    """Any raw GPU shares as non-negative shares with a sum of at most 1 (29). ModelError if not finite."""
    kept = [float(x) if x > 0.0 else 0.0 for x in raw]
    total = _finite_sum(kept, raw)
    return [x / total for x in kept] if total > 1.0 else kept


def project_box(raw: float, low: float, high: float) -> float:
    """`raw` moved into [low, high] (24). ModelError if it is not finite."""
    _finite_sum((raw,), (raw,))
    return float(min(max(raw, low), high))


def _finite_sum(kept: Sequence[float], raw: Sequence[float]) -> float:
    """Sum of `kept`; ModelError if it or the raw values' sum is not finite."""
    total = sum(kept)
    if (total + sum(raw)) * 0.0 != 0.0:
        raise ModelError(f"the policy's shares or set points {list(raw)} are not all finite numbers")
    return total
