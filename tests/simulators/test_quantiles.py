"""Quantiles from parts are those of numpy, whether all values are kept or read twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosim.simulators.analysis import quantiles as module
from cosim.simulators.analysis.quantiles import quantiles

RATIOS = (0.0, 0.5, 0.95, 0.99, 1.0)


def in_parts(values, size):
    return lambda: (("all", values[k:k + size]) for k in range(0, len(values), size))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=1, max_size=60), st.integers(1, 20),
       st.integers(0, 40))
def test_they_are_numpys(values, size, kept):
    before, module.KEPT = module.KEPT, kept
    try:
        found = quantiles(in_parts(np.array(values), size), RATIOS)
    finally:
        module.KEPT = before
    assert found == {"all": (len(values), tuple(np.quantile(values, RATIOS).tolist()))}


def test_many_values_are_read_twice_and_groups_stay_apart(monkeypatch):
    rng = np.random.default_rng(0)
    values = {"a": rng.lognormal(0.0, 2.0, 5000), "b": rng.exponential(3.0, 100), "none": np.empty(0)}
    monkeypatch.setattr(module, "KEPT", 1000)
    read = []

    def parts():
        read.append(1)
        for name, of in values.items():
            yield from ((name, of[k:k + 700]) for k in range(0, max(len(of), 1), 700))
    found = quantiles(parts, (0.5, 0.99))
    assert len(read) == 2
    assert found.keys() == {"a", "b"}
    for name in found:
        assert found[name] == (len(values[name]), tuple(np.quantile(values[name], (0.5, 0.99)).tolist()))
    assert quantiles(lambda: iter(()), (0.5,)) == {}


def test_equal_values_fill_one_cell(monkeypatch):
    monkeypatch.setattr(module, "KEPT", 10)
    assert quantiles(in_parts(np.full(100, 2.5), 7), (0.1, 0.9)) == {"all": (100, (2.5, 2.5))}
    assert quantiles(in_parts(np.zeros(100), 7), (0.5,))["all"][1] == pytest.approx((0.0,))
