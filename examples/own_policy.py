"""A policy of one's own: everything to the site with the cleanest power that still has free GPUs.

    cd examples && cosim run ieee33 --set controller.policy=own_policy:CleanestFree --until 2h
"""

from cosim.agents.fleet.heuristics import Uniform


class CleanestFree(Uniform):
    """`place` says where jobs go, `lead` which release time they get; GPUs are split as the rule policies do it."""

    needs_nci = True

    def place(self, observation):
        sites = range(self.facts.n_sites)
        best = min(sites, key=lambda i: (observation.free_gpu_ratio[i] < 0.05, observation.nci_kg_per_kwh[i]))
        return [[float(i == best) for i in sites] for _ in self.facts.kinds]

    def lead(self, observation):
        forecast = list(observation.forecast_usd_per_kwh)
        return forecast.index(min(forecast))  # training waits for the cheapest of the permitted release times
