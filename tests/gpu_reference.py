"""A plain simulation of inference on single GPUs with types, limits and sleep, a quarter of a second at a time.

Every GPU is an object. It shares no code with the engine; all times and speeds of the tests that use it are multiples
of a quarter, so that both must agree to the last bit.
"""

from dataclasses import dataclass, field

STEP_S = 0.25


@dataclass(eq=False)
class OneGpu:
    """state: busy, idle, waking or asleep, since `since_s`; a busy one works on job `job`."""

    type: int
    state: str = "idle"
    since_s: float = 0.0
    job: int = -1


@dataclass
class OneType:
    """speed and power at full speed; at half speed half of what is above idle."""

    count: int
    speed: float
    idle_kw: float
    peak_kw: float
    asleep_kw: float
    wake_s: float
    slow: bool = False

    def kw(self, state):
        busy = self.idle_kw + (self.peak_kw - self.idle_kw) * (0.5 if self.slow else 1.0)
        return {"busy": busy, "idle": self.idle_kw, "waking": self.idle_kw, "asleep": self.asleep_kw}[state]


@dataclass
class Reference:
    """One class of jobs of one GPU each, first come first served; `order`: types, best first; `after_s` None: no
    sleep. `left`: id -> seconds of work at speed 1."""

    types: list
    order: list
    after_s: float | None
    keep_idle: int = 0
    now_s: float = 0.0
    grant: int = 0
    energy_kws: float = 0.0
    line: list = field(default_factory=list)
    left: dict = field(default_factory=dict)
    begun: dict = field(default_factory=dict)
    ended: dict = field(default_factory=dict)

    def __post_init__(self):
        self.gpus = [OneGpu(t) for t, one in enumerate(self.types) for _ in range(one.count)]

    def of(self, state, t=None):
        return [g for g in self.gpus if g.state == state and t in (None, g.type)]

    def settle(self):
        """All that happens at this instant."""
        for g in self.of("waking"):
            if self.now_s >= g.since_s + self.types[g.type].wake_s:
                g.state, g.since_s = "idle", self.now_s
        for g in self.of("busy"):
            if self.left[g.job] <= 0.0:
                self.ended[g.job] = self.now_s
                g.state, g.since_s = "idle", self.now_s
        for t in self.order:
            while self.line and self.of("idle", t) and len(self.of("busy")) < self.grant:
                g = max(self.of("idle", t), key=lambda g: g.since_s)
                g.job = self.line.pop(0)
                g.state, self.begun[g.job] = "busy", self.now_s
        self.wake()
        if self.after_s is None:
            return
        for t in range(len(self.types)):
            idle = sorted(self.of("idle", t), key=lambda g: g.since_s)
            for g in idle[:max(len(idle) - self.keep_idle, 0)]:
                if g.since_s + self.after_s <= self.now_s:
                    g.state = "asleep"

    def wake(self):
        """Who waits within the grant and finds no GPU, nor one that wakes up, wakes one up."""
        need = min(len(self.line), self.grant - len(self.of("busy")))
        for t in self.order:
            coming = len(self.of("waking", t)) + len(self.of("idle", t))
            for g in self.of("asleep", t):
                if coming >= need:
                    break
                g.state, g.since_s = "waking", self.now_s
                coming += 1
            need = max(need - coming, 0)

    def advance(self, to_s):
        """Run to an instant, and through it."""
        self.settle()
        while self.now_s < to_s:
            for g in self.gpus:
                one = self.types[g.type]
                self.energy_kws += one.kw(g.state) * STEP_S
                if g.state == "busy":
                    self.left[g.job] -= one.speed * (0.5 if one.slow else 1.0) * STEP_S
            self.now_s += STEP_S
            self.settle()
