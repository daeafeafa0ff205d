"""Where jobs come from: origins of a network, drawn by the shares of a class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cosim.simulators.wan import Wan


class Origins:
    """Origins of jobs, from a stream of random numbers of each class of its own.

    names   of the origins, as text objects, by their numbers
    """

    def __init__(self, wan: Wan, job_classes: Sequence[str], stream: Callable[[str], np.random.Generator]) -> None:
        self.names = np.array(wan.origins, dtype=object)
        self._edges = [np.cumsum(wan.shares_of(name)) for name in job_classes]
        self._streams = [stream(f"origins of {name}") for name in job_classes]

    def of(self, class_index: np.ndarray) -> np.ndarray:
        """Numbers of the origins of the next jobs, whose classes are these."""
        out = np.zeros(len(class_index), int)
        for m in np.unique(class_index):
            mine = class_index == m
            drawn = np.searchsorted(self._edges[m], self._streams[m].random(np.count_nonzero(mine)), side="right")
            last = np.flatnonzero(np.diff(self._edges[m], prepend=0.0) > 0.0)[-1]  # a sum of shares may end below 1
            out[mine] = np.minimum(drawn, last)
        return out
