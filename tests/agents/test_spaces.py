"""(33)-(38) as exact integers; Table III to the last printed digit."""

import subprocess
import sys
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.agents.fleet.spaces import cardinalities, table3, truncated
from cosim.errors import ScenarioError

PAPER = {2: ("4.29e25", "1.08e11", "3.96e14"), 3: ("3.01e39", "1.62e11", "1.85e28"),
         4: ("5.75e52", "2.23e11", "2.57e41"), 5: ("4.67e65", "1.27e12", "3.67e53")}


@pytest.mark.parametrize("n", PAPER)
@pytest.mark.rows("E33-38", "I35", "X15")
def test_table_iii(n):
    size = cardinalities(n)
    flat, hierarchical = size["flat"], size["hierarchical"]
    assert (truncated(flat), truncated(hierarchical), truncated(flat, hierarchical)) == PAPER[n]


@pytest.mark.rows("E34-36")
def test_one_aidc_by_hand():
    """1001 GPU splits (C(14,10)), 3003 deferral splits per class (C(15,10)), 6 temperatures."""
    assert cardinalities(3)["aidc"] == 1001 * 3003**2 * 6 == 54_162_162_054


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(0, 1), st.integers(1, 3), st.integers(1, 3))
@pytest.mark.rows("E33-38", "U21")
def test_against_counting(n_sites, gamma, n_train, n_inf, n_deferrals, n_temperatures):
    """Every ratio vector in steps of 1/gamma, counted one by one."""
    def points(parts, slack=False):
        sums = (sum(p) for p in product(range(gamma + 1), repeat=parts))
        return sum(s <= gamma if slack else s == gamma for s in sums)

    size = cardinalities(n_sites, gamma, n_train, n_inf, n_deferrals, n_temperatures)
    assert size["wm"] == points(n_sites) ** (n_train + n_inf)
    aidc = points(n_train + n_inf, slack=True) * points(n_deferrals) ** n_train * n_temperatures
    assert size["aidc"] == aidc
    assert size["flat"] == size["wm"] * aidc**n_sites
    assert size["hierarchical"] == size["wm"] + n_sites * aidc


@pytest.mark.rows("X15")
def test_the_command_prints_it():
    program = [sys.executable, "-m", "cosim.agents.fleet.spaces"]
    done = subprocess.run([*program, "--table3"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == table3()
    assert "3  3.01e39" in done.stdout
    assert subprocess.run([*program, "--table4"], capture_output=True, check=False).returncode == 2


def test_nonsense_is_refused():
    with pytest.raises(ScenarioError, match="n_sites = 0 must be >= 1"):
        cardinalities(0)
