"""What the README says is so: its map is the tree, its figures are those of a run (test_docs runs its commands)."""

import ast
import re
from pathlib import Path

from test_docs import generate
from worlds import run

from cosim.run import available, find, main
from cosim.trace import Trace

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def test_the_simulator_of_the_readme_runs(tmp_path, monkeypatch):
    simulator, scenario = (block for kind, block in BLOCKS if kind == "python" and "flat" in block.lower())
    (tmp_path / "flatgrid.py").write_text(simulator)
    (tmp_path / "flat.py").write_text(scenario)
    monkeypatch.chdir(tmp_path)
    assert main(["flat.py", "--until", "30min", "--quiet", "--out", "flat.h5"]) == 0
    with Trace("flat.h5") as trace:
        assert set(trace["grid/Bus/nci_kg_per_kwh"].ravel()) == {0.4}
        assert trace["aidc/Site/p_kw"].max() > 125
    assert main(["flat.py", "--until", "30min", "--out", "flat2.h5", "--driver", "native"]) == 0


def test_commands_name_scenarios_that_there_are():
    consoles = "".join(block for kind, block in BLOCKS if kind == "console")
    named = re.findall(r"cosim[. ]run (\w+)(?= |$)", consoles)
    assert named
    assert set(named) <= set(available())


def test_the_map_is_the_tree():
    """README shows what `docs/generate.py house` makes of the rooms and of what their doors say."""
    made = generate().house()
    assert made in README
    for package in ("cosim", "agents", "simulators", "scenarios"):
        for path in (ROOT / package).rglob("__init__.py"):
            assert ast.get_docstring(ast.parse(path.read_text())), f"{path.parent.name} does not say what is inside"


def test_a_day_brings_the_jobs_it_says(tmp_path):
    """Arrivals alone, for a day. Their rates come to 182 365 in the mean with a spread of 427, its root; a figure that
    is rounded to thousands is 500 off at most. Whatever the generator draws: five spreads of both."""
    scenario = find("ieee33")
    alone = scenario.replace(members={"workload": scenario.members["workload"]}, links=(), preflight=None, summary=None,
                             shared={"job_classes": scenario.shared["job_classes"]})
    path = run(alone, tmp_path / "t.h5").path
    with Trace(path) as trace:
        said = int(re.search(r"\(some (\d+ \d+) jobs", README).group(1).replace(" ", ""))
        rates = scenario.members["workload"].params["arrivals"].values()
        mean = 1440 * sum(rate["mean_per_min"] for rate in rates)
        assert said == round(mean, -3)
        assert abs(trace["workload/Arrivals/arrived_jobs"].sum() - mean) < 5 * mean**0.5
