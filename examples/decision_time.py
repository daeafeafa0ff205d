"""What a decision of the planner costs: CPU time of each plan of two hours, in ms.

    cd examples && python decision_time.py
"""

from time import process_time

import cosim
from cosim.agents.fleet.planner import Mpc


class Timed(Mpc):
    """The planner, with a clock: a minute in which it plans takes longer than one in which it follows its plan."""

    planned_ms: list[float] = []
    followed_ms: list[float] = []

    def place(self, observation):
        before, began = self.plans, process_time()
        share = super().place(observation)
        (self.planned_ms if self.plans > before else self.followed_ms).append(1e3 * (process_time() - began))
        return share


if __name__ == "__main__":
    cosim.simulate("ieee33_living", until="2h", set={"controller.policy": "decision_time:Timed"}, out="timed.h5",
                   driver="native", overwrite=True, progress=False)
    from decision_time import Timed as Ran  # the run imported this file by its name

    first, *later = Ran.planned_ms
    print(f"the first plan, with the import of the solver: {first:.1f} ms")
    for what, ms in (("a plan after it", later), ("a minute in between", Ran.followed_ms)):
        ordered = sorted(ms)
        print(f"{what}: {len(ms)} times, median {ordered[len(ms) // 2]:.1f} ms, longest {ordered[-1]:.1f} ms")
