"""What tests of whole days share: how often sites change places, whether two traces are the same, what a rule sees."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

from cosim.agents.fleet.decision import Observation
from cosim.agents.fleet.heuristics import Uniform


def swaps(of_sites: np.ndarray) -> int:
    """How often one of three sites passes another, over all pairs; less than 0.005 kg/kWh apart they are as one."""
    apart = [of_sites[:, i] - of_sites[:, j] for i in range(3) for j in range(i)]
    return sum(np.count_nonzero(np.diff(np.sign(d[np.abs(d) > 0.005]))) for d in apart)


def same_traces(one: Path, other: Path) -> None:
    """Every dataset of one file stands in the other, byte for byte."""
    def same(name: str, found: object) -> None:
        if isinstance(found, h5py.Dataset):
            mine, theirs = found[()], b[name][()]
            assert mine.shape == theirs.shape, name
            assert (mine == theirs).all() if mine.dtype.kind == "O" else mine.tobytes() == theirs.tobytes(), name

    with h5py.File(one) as a, h5py.File(other) as b:
        a.visititems(same)


class Keeps(Uniform):
    """The rule `uniform`, that keeps what it observes."""

    seen: ClassVar[list[Observation]] = []

    def place(self, observation: Observation):
        Keeps.seen.append(observation)
        return super().place(observation)
