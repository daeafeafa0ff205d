"""The dispatch with limits of lines and transformers against an AC optimal power flow by IPOPT."""

import pytest
from feeder_opf import compare


@pytest.mark.long(after=1)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_dispatch_is_the_optimum_that_ipopt_finds(seed):
    """Objective, sources, loading of a branch that is full, and the marginal intensity as a difference of IPOPT's own
    optima 8 kW apart; seed 0 has a transformer off its nominal ratio. `python tests/feeder_opf.py` does thirty."""
    off = compare(seed)
    assert off.full
    assert off.objective_ratio < 1e-6
    assert off.source_kw < 0.05
    assert off.loading_ratio < 1e-5
    assert off.mci_kg_per_kwh < 1e-4
