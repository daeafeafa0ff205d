"""The contract check passes what keeps it, and names what breaks it: one fault at a time, on the README's own grid."""

import re
from pathlib import Path

import pytest

from cosim.check import main

README = (Path(__file__).parents[2] / "README.md").read_text()
TEMPLATE = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "FlatGrid" in block)

FAULTS = {
    "outputs are finite numbers": "return {b: {'nci_kg_per_kwh': float('nan')} for b in self.entities['Bus']}",
    "outputs are plain": "return {b: {'nci_kg_per_kwh': np.float32(0.4)} for b in self.entities['Bus']}",
    "equal inputs give equal": "return {b: {'nci_kg_per_kwh': random.random()} for b in self.entities['Bus']}",
    "NCI lies between": "return {b: {'nci_kg_per_kwh': -0.1} for b in self.entities['Bus']}",
    "zero inputs": "return {b: {'nci_kg_per_kwh': 1.0 / (inputs[b]['p_load_kw'] + 1e-9)} for b in self.entities['Bus'] "
                   "if inputs['bus1']['p_load_kw'] or 1 / 0}",
}


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported; each under its own name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.mark.long(after=2)
@pytest.mark.parametrize("role", ["grid", "aidc", "workload", "tariff", "controller", "profile"])
def test_our_own_simulators_pass(role, capsys):
    assert main([role]) == 0
    assert " 0 failed" in capsys.readouterr().out


@pytest.mark.long
def test_somebody_elses_grid_passes(capsys):
    assert main(["grid", "--scenario", "plug_pandapower"]) == 0
    assert main(["carbon", "--scenario", "plug_pandapower"]) == 0


def entities(buses=33):
    return '--set=grid.entities={"Bus": [' + ", ".join(f'"bus{k}"' for k in range(buses)) + "]}"


def test_the_template_of_the_readme_passes(module, capsys):
    assert main(["grid", f"{module('flat_ok', TEMPLATE)}:FlatGrid", entities()]) == 0
    assert "not checked: it answers to load: it exports none of" in capsys.readouterr().out


@pytest.mark.long(after=1)
@pytest.mark.parametrize("says", FAULTS)
def test_each_fault_is_named_with_its_fix(module, capsys, says):
    head, _, _ = TEMPLATE.partition("        return {bus")
    text = f"import random\nimport numpy as np\n{head}        {FAULTS[says]}\n"
    name = module(f"flat_{re.sub(r'[^a-z]', '_', says.lower())}", text)
    assert main(["grid", f"{name}:FlatGrid", entities()]) == 1
    said = capsys.readouterr().out
    failed = [line for line in said.splitlines() if line.startswith("FAILED ")]
    assert any(says in line or "failed at" in line for line in failed), said
    assert "fix:" in said


@pytest.mark.long
def test_bus_level_faults_of_bare_mosaik_simulators(module, capsys):
    bare = ("import mosaik_api_v3\n"
            "class Grid(mosaik_api_v3.Simulator):\n"
            "    def __init__(self):\n"
            "        super().__init__({'api_version': '3.0', 'type': 'time-based', 'models': {'Bus': {'public': True,\n"
            "            'params': [], 'attrs': ['p_load_kw', 'q_load_kvar', 'nci_kg_per_kwh']}}})\n"
            "    def init(self, sid, time_resolution=1.0): return self.meta\n"
            "    def create(self, num, model): return [{'eid': f'bus{k}', 'type': model} for k in range(num)]\n"
            "    def step(self, time, inputs, max_advance):\n        BODY\n        return time + STEP\n"
            "    def get_data(self, outputs): return {e: {a: 0.5 for a in attrs} for e, attrs in outputs.items()}\n")
    good = bare.replace("BODY", "pass").replace("STEP", "15")
    assert main(["grid", f"{module('bare_good', good)}:Grid", entities()]) == 0
    pops = bare.replace("BODY", "[ports.pop('p_load_kw', None) for ports in inputs.values()]").replace("STEP", "15")
    assert main(["grid", f"{module('bare_pops', pops)}:Grid", entities()]) == 1
    assert "step() changed its inputs" in capsys.readouterr().out
    plain = "return {e: {a: 0.5 for a in attrs} for e, attrs in outputs.items()}"
    same = good.replace(plain, "return self.same(outputs)")
    same += ("    def same(self, outputs):\n"
             "        self.n = getattr(self, 'n', 0) + 1\n"
             "        self.out = getattr(self, 'out', {e: {} for e in outputs})\n"
             "        for e, attrs in outputs.items():\n"
             "            self.out[e].update(dict.fromkeys(attrs, 0.5 + self.n * 1e-3))\n"
             "        return self.out\n")
    assert main(["grid", f"{module('bare_same', same)}:Grid", entities()]) == 1
    assert "a value given out earlier changed later" in capsys.readouterr().out
    lame = bare.replace("BODY", "pass").replace("STEP", "(15 if time < 45 else 30)")
    assert main(["grid", f"{module('bare_lame', lame)}:Grid", entities()]) == 1
    assert "asks for its next step" in capsys.readouterr().out
    event = good.replace("time-based", "event-based")
    assert main(["grid", f"{module('bare_event', event)}:Grid", entities()]) == 1
    assert "META is time-based" in capsys.readouterr().out
    named = good.replace("max_advance", "m")
    assert main(["grid", f"{module('bare_named', named)}:Grid", entities()]) == 1
    assert "step() has a parameter called max_advance" in capsys.readouterr().out


SOUND = """
from cosim.adapter import Adapter
from cosim.params import params
from cosim.ports import Port

@params
class NoParams:
    nci: float = 0.4

class Grid(Adapter):
    PARAMS = NoParams
    MODELS = {"Bus": (Port("p_load_kw", "in", "load", reduce="sum", default=0.0),
                      Port("q_load_kvar", "in", "load", reduce="sum", default=0.0),
                      Port("nci_kg_per_kwh", "out", "intensity")),
              "Grid": (Port("loss_kw", "out", "loss"), Port("emission_kg_per_h", "out", "carbon"))}

    def advance(self, time_s, inputs):
        drawn = sum(inputs[bus]["p_load_kw"] for bus in self.entities["Bus"])
        loss = 0.01 * drawn
        return {**{bus: {"nci_kg_per_kwh": self.params.nci} for bus in self.entities["Bus"]},
                **{g: {"loss_kw": loss, "emission_kg_per_h": 0.4 * drawn} for g in self.entities["Grid"]}}
"""


@pytest.mark.long(after=1)
@pytest.mark.parametrize(("change", "says"), [
    (("nci: float = 0.4", "nci: float = 400.0"), "it looks like g/kWh (0.4 kg/kWh)"),
    (("nci: float = 0.4", "nci: float = -0.1"), "it reaches from -0.1"),
    (('inputs[bus]["p_load_kw"]', "7.0"), "loss_kw, emission_kg_per_h are the same at zero and 3-fold demand"),
    (("0.01 * drawn", "-0.01 * drawn"), "losses are not negative"),
    (("0.4 * drawn", "drawn - 2500.0"), "emissions are not negative"),
])
def test_a_grid_that_cannot_be_is_named(module, capsys, change, says):
    name = re.sub(r"[^a-z]", "_", says.lower())[:30]
    both = entities().replace("]}", '], "Grid": ["grid"]}')
    assert main(["grid", f"{module(f'sound_{name}', SOUND)}:Grid", both]) == 0
    said = capsys.readouterr().out
    assert "not checked: sources give what is drawn and lost: no entity of it exports" in said
    assert SOUND.replace(*change) != SOUND
    assert main(["grid", f"{module(f'bad_{name}', SOUND.replace(*change))}:Grid", both]) == 1
    said = capsys.readouterr().out
    assert any(says in line for line in said.splitlines() if line.startswith("FAILED "))


def test_a_port_in_grams_that_says_so_is_converted(module, capsys):
    text = SOUND.replace('"nci_kg_per_kwh"', '"nci_g_per_kwh"').replace("nci: float = 0.4", "nci: float = 400.0")
    both = entities().replace("]}", '], "Grid": ["grid"]}')
    assert main(["grid", f"{module('grams', text)}:Grid", both, "--map=grid.nci_kg_per_kwh=nci_g_per_kwh"]) == 0


def world(module, name, **hooks):
    """A scenario file of one grid of SOUND without demand."""
    grid = module(f"world_{name}", SOUND)
    text = "".join(f", {hook}={value!r}" for hook, value in hooks.items())
    module(f"scene_{name}", "from cosim.scenario import Member, Scenario\n"
           f"SCENARIO = Scenario(name='{name}', about='one grid', members={{'net': Member(simulator='{grid}:Grid', "
           f"step_s=900, entities={{'Bus': ['b'], 'Grid': ['g']}})}}{text})\n")
    return f"scene_{name}.py"


def test_a_scenario_brings_contracts_of_its_own(module, tmp_path, capsys):
    """Also for a member that is called otherwise; one that names none is told so, one that fails is named."""
    module("own_contracts", "from cosim.contracts import that\n"
           "def net(trial):\n"
           "    yield that('loses nothing', max(trial.values('loss_kw')) == 0.0, 'it loses', 'do not')\n"
           "    yield that('is free of carbon', max(trial.values('nci_kg_per_kwh')) == 0.0, 'it emits', 'stop it')\n"
           "def broken(trial):\n    return trial.nothing\n"
           "MINE, BROKEN, ODD = {'net': net}, {'net': broken}, 7\n")
    assert main(["net", "--scenario", str(tmp_path / world(module, "none"))]) == 0
    assert "not checked: keeps the contract of its role: none names no contracts" in capsys.readouterr().out
    assert main(["net", "--scenario", str(tmp_path / world(module, "mine", contracts="own_contracts:MINE"))]) == 1
    said = capsys.readouterr().out
    assert re.search(r"loses nothing +passed", said)
    assert "FAILED is free of carbon: it emits" in said
    for name, words in (("BROKEN", "does not cope with this simulator: AttributeError"), ("ODD", "is a int; name a")):
        scene = world(module, name.lower(), contracts=f"own_contracts:{name}")
        assert main(["net", "--scenario", str(tmp_path / scene)]) == 2
        assert words in capsys.readouterr().err.replace("\n", " ")


def test_wrong_requests(capsys):
    assert main(["gird"]) == 2
    assert "'gird' is no member" in capsys.readouterr().err
    assert main(["grid", "no.such:Grid"]) == 2
    assert main([]) == 2
    assert capsys.readouterr().err.count("\n") == 2
