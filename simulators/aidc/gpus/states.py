"""GPUs of one type at a site: how many are busy, idle, waking up and asleep, and when that changes by itself.

A busy GPU that comes free goes on top of the idle ones, and one that is needed is taken from the top, so that the
others become idle for long. There are no jobs here: how many are busy is set by the facility.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from cosim.params import params
from cosim.simulators.aidc.engine.jobs import nearest_tick
from cosim.simulators.aidc.gpus.types import GpuType
from cosim.units import Seconds

BUSY, IDLE, WAKING, ASLEEP = STATES = ("busy", "idle", "waking", "asleep")


@params
class SleepRules:
    """When idle GPUs go to sleep. They wake up when a job within its grant finds no free one that is awake."""

    after_s: Annotated[Seconds, Field(ge=1, le=31_536_000, description="a GPU goes to sleep when it was idle so long"
                                      )] = 600.0
    keep_idle: Annotated[int, Field(ge=0, le=10_000_000, description="idle GPUs of each type that stay awake")] = 0
    unit_gpus: Annotated[int, Field(ge=1, le=100_000, description="GPUs that sleep and wake up together: 1, or those "
                                    "of a server or a rack")] = 1


class GpuGroup:
    """The states of GPUs of one type; all are awake and idle at the begin.

    busy, asleep   how many are; `idle`, `waking` likewise, `awake` busy or idle
    unit           how many sleep and wake up together
    target         how many are to be awake or waking up by command; None: the rules decide
    next_s         when some wake up or have been idle for long enough
    """

    def __init__(self, figures: GpuType, rules: SleepRules | None, now_s: float) -> None:
        self.count = figures.count
        self._wake_s, self._rules = figures.wake_s, rules
        self.unit = 1 if rules is None else rules.unit_gpus
        self.busy = self.asleep = 0
        self.target: int | None = None
        self.next_s = math.inf
        self._idle: list[list[float]] = [[now_s, self.count]]  # (since, how many), the longest first
        self._waking: list[list[float]] = []  # (ready, how many), the first first
        self._look_ahead(now_s)

    @property
    def waking(self) -> int:
        """GPUs that wake up."""
        return int(sum([n for _, n in self._waking]))

    @property
    def awake(self) -> int:
        """GPUs that jobs hold or could take."""
        return self.count - self.asleep - self.waking

    @property
    def idle(self) -> int:
        """GPUs awake that no job holds."""
        return self.awake - self.busy

    def levels(self) -> tuple[int, int, int, int]:
        """GPUs in each of STATES."""
        waking = self.waking
        return self.busy, self.count - self.asleep - waking - self.busy, waking, self.asleep

    # --- what happens -------------------------------------------------------------------------------------------

    def ready(self, now_s: float) -> bool:
        """Those whose time to wake up is over are idle from now on; whether there were any."""
        there = bool(self._waking) and self._waking[0][0] <= now_s
        while self._waking and self._waking[0][0] <= now_s:
            self._push(now_s, self._waking.pop(0)[1])
        return there

    def hold(self, busy: int, now_s: float) -> None:
        """So many are busy from now on, at most `awake`."""
        if busy < self.busy:
            self._push(now_s, self.busy - busy)
        left = busy - self.busy
        while left > 0:
            top = self._idle[-1]
            taken = min(left, top[1])
            top[1] -= taken
            left -= int(taken)
            if not top[1]:
                self._idle.pop()
        self.busy = busy

    def wake(self, gpus: int, now_s: float) -> int:
        """Begin to wake up so many that sleep, in whole units, as far as there are; how many."""
        number = min(-(-gpus // self.unit) * self.unit, self.asleep) if gpus > 0 else 0
        if number:
            self.asleep -= number
            self._waking.append([nearest_tick(now_s + self._wake_s), number])
        return number

    def doze(self, now_s: float) -> None:
        """Put to sleep who may sleep now: by the rules, or beyond the number commanded, who is idle longest first."""
        if self.target is not None:
            self._sleep(self.awake + self.waking - self.target)
        elif self._rules is not None:
            due = sum([n for since_s, n in self._idle if nearest_tick(since_s + self._rules.after_s) <= now_s])
            self._sleep(int(min(due, self.idle - self._rules.keep_idle)))
        self._look_ahead(now_s)

    def short_of_target(self) -> int:
        """GPUs asleep that are to be awake by command."""
        return 0 if self.target is None else max(self.target - self.awake - self.waking, 0)

    # --- from one world to the next -----------------------------------------------------------------------------

    def keep(self) -> tuple[int, list[list[float]], list[list[float]]]:
        """(asleep, idle ones, waking ones), as `restore` takes them."""
        return self.asleep, [*map(list, self._idle)], [*map(list, self._waking)]

    def restore(self, busy: int, asleep: int, idle: list[list[float]], waking: list[list[float]], now_s: float) -> None:
        """Go on from what another group kept, times of this world."""
        self.busy, self.asleep = busy, asleep
        self._idle, self._waking = [*map(list, idle)], [*map(list, waking)]
        self._look_ahead(now_s)

    # --- inside -------------------------------------------------------------------------------------------------

    def _push(self, now_s: float, number: float) -> None:
        if self._idle and self._idle[-1][0] == now_s:
            self._idle[-1][1] += number
        else:
            self._idle.append([now_s, number])

    def _sleep(self, gpus: int) -> None:
        left = max(min(gpus, self.idle), 0) // self.unit * self.unit
        self.asleep += left
        while left > 0:
            taken = min(left, self._idle[0][1])
            self._idle[0][1] -= taken
            left -= int(taken)
            if not self._idle[0][1]:
                self._idle.pop(0)

    def _look_ahead(self, now_s: float) -> None:
        self.next_s = self._waking[0][0] if self._waking else math.inf
        if self._rules is not None and self.target is None:
            for since_s, _ in self._idle:
                due_s = nearest_tick(since_s + self._rules.after_s)
                if due_s > now_s:
                    self.next_s = min(self.next_s, due_s)
                    break
