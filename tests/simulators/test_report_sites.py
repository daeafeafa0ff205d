"""Where jobs went beside the carbon of their sites, as the report has it, against the trace added up by hand."""

import numpy as np
import pytest
from scipy import stats

from cosim.experiment import Experiment
from cosim.run import find
from cosim.scenario import override
from cosim.simulators.reporting import sites
from cosim.simulators.reporting.data import FleetRun
from cosim.trace import Trace

COLOURS = {"aidc1": "site0", "aidc2": "site1", "aidc3": "site2"}


@pytest.mark.rows("X07-09")
def test_where_jobs_went_beside_the_carbon(tmp_path):
    """An hour of `nci_priority` with warm-up: jobs of each kind and dispatch by site, summed up one by one, and the
    correlation of their shares with NCI by scipy."""
    path = tmp_path / "follow.h5"
    scenario = override(find("ieee33"), {"controller.policy": "nci_priority", "grid.mci": "false", "seed": "1",
                                         "grid.ac_check": "false", "warmup_s": "15min", "workload.rate_scale": "2"})
    Experiment(scenario, "native", 3600.0, path).run()
    with Trace(path) as trace:
        got = sites.allocation(FleetRun(trace, "", COLOURS))
        picture = sites.load_and_carbon(FleetRun(trace, "", COLOURS))
        nci, received = trace["grid/Bus/nci_kg_per_kwh"][1:, [8, 28, 32]], trace["aidc/Site/received_jobs"][15:]
        early = trace["aidc/Site/received_jobs"][:15, :, 2:]
    assert list(got) == ["training", "inference"]
    for kind, classes in (("training", (0, 1)), ("inference", (2, 3))):
        sent = np.array([[sum(received[m, s, c] for m in range(15 * k, 15 * k + 15) for c in classes)
                          for s in range(3)] for k in range(4)])
        came = sent.sum(axis=1) > 0
        assert got[kind].time_s.tolist() == [900.0 * (k + 1) for k in range(4) if came[k]]
        assert got[kind].nci == pytest.approx(nci[came])
        assert got[kind].share == pytest.approx(sent[came] / sent[came].sum(axis=1, keepdims=True))
        panel = next(p for p in picture.panels if p.title == f"Share of {kind} jobs sent")
        assert sum(line.y for line in panel.series) == pytest.approx(100.0)
        fact = next(f for f in picture.facts if f.name == f"correlation of NCI with the share of {kind} jobs")
        expected = stats.pearsonr(nci[came].ravel(), (sent[came] / sent[came].sum(axis=1, keepdims=True)).ravel())
        assert fact.value == pytest.approx(expected.statistic)
    jobs_an_hour = next(p for p in picture.panels if p.title.startswith("Inference jobs sent"))
    assert sum(line.y[:15].sum() for line in jobs_an_hour.series) == pytest.approx(60 * early.sum())
    assert sites.correlation(np.ones(4), np.arange(4.0)) is None
