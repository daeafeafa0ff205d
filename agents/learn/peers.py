"""Processes that learn one team together: each plays some of the environments and computes some of every gradient.

All run the same loop with the same weights and random numbers. Rollouts stand in shared arrays, an update is made of
all of it, and its gradient is the sum of the processes' in a fixed order, so that all take the same
step: PPO as one process does it, but for the order in which numbers are added up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np


class Channel(Protocol):
    """Arrays and messages between the processes of one training."""

    def share(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """The shared array of that name."""
        ...

    def exchange(self, said: bytes) -> list[bytes]:
        """A barrier: the messages of all processes in the first one, the message of the first in the others."""
        ...

    def gather(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of all processes in the first one, those given in the others; a barrier."""
        ...


class Peers(Protocol):
    """The processes that learn a team. rank: of this one, from 0; count: of all; rows: numbers of the environments
    in this process."""

    rank: int
    count: int
    rows: slice | np.ndarray

    def all_envs(self, here: int) -> int:
        """Number of environments of all processes, `here` of them in this one."""
        ...

    def zeros(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """A shared array, of which this process writes its own rows; its content is undefined until then."""
        ...

    def meet(self, said: Mapping[str, Any]) -> list[Any]:
        """A barrier: the messages of all processes in the first one, the message of the first in the others."""
        ...

    def summed(self, mine: Mapping[int, np.ndarray], parts: int, length: int) -> np.ndarray:
        """The sum of the vectors (length,) of all parts, in the parts' order, given those computed here: float32."""
        ...


    def gathered(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of all processes, under names of their own, in the first one; those given in the others."""
        ...


class Alone:
    """One process that learns by itself."""

    rank, count = 0, 1
    rows: slice | np.ndarray = slice(None)

    def all_envs(self, here: int) -> int:
        """See Peers."""
        return here

    def zeros(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """See Peers."""
        return np.zeros(shape, dtype)

    def meet(self, said: Mapping[str, Any]) -> list[Any]:
        """See Peers."""
        return [said]

    def summed(self, mine: Mapping[int, np.ndarray], parts: int, length: int) -> np.ndarray:
        """See Peers."""
        return _sum_of([mine[k] for k in range(parts)])

    def gathered(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Peers."""
        return dict(arrays)


class Together:
    """One of several processes that learn together.

    numbers: of the environments, process by process; channel: to the others
    """

    rows: slice | np.ndarray

    def __init__(self, rank: int, numbers: Sequence[Sequence[int]], channel: Channel):
        self.rank, self.count, self.rows = rank, len(numbers), np.array(numbers[rank], np.int64)
        self._n_envs, self._here, self._channel = sum(map(len, numbers)), len(numbers[rank]), channel
        self._arrays: dict[str, np.ndarray] = {}
        self._turn = 0

    def all_envs(self, here: int) -> int:
        """See Peers."""
        assert here == self._here, "only its own environments"
        return self._n_envs

    def zeros(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """See Peers; the same memory in every call: a barrier must lie between the last read and the next write."""
        name = "-".join([name, *map(str, shape)])
        if name not in self._arrays:
            self._arrays[name] = self._channel.share(name, shape, dtype)
        return self._arrays[name]

    def meet(self, said: Mapping[str, Any]) -> list[Any]:
        """See Peers."""
        return [json.loads(line) for line in self._channel.exchange(json.dumps(said).encode())]

    def summed(self, mine: Mapping[int, np.ndarray], parts: int, length: int) -> np.ndarray:
        """See Peers. Two arrays in turn: between a read of one and the next write to it lies a barrier."""
        self._turn = 1 - self._turn
        table = self.zeros(f"sums-{self._turn}", (parts, length), np.float32)
        for k, vector in mine.items():
            table[k] = vector
        self.meet({})
        return _sum_of(table)

    def gathered(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See Peers."""
        return self._channel.gather(arrays)


def _sum_of(rows: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
    total = np.array(rows[0])
    for row in rows[1:]:
        total += row
    return total


def shares_of(n_envs: int, twins: int, count: int) -> list[list[int]]:
    """Numbers of the environments of each of `count` processes (at most one for each environment): groups of twins
    dealt out in turn, or environments where there are fewer groups than processes.

    Neighbours begin at similar hours of the day; in contiguous blocks, one process would get all the busy hours.
    """
    size = twins if n_envs // twins >= count else 1
    return [[b for b in range(n_envs) if b // size % count == k] for k in range(min(count, n_envs))]
