"""An FMU in the grid's place: the grid of own_grid.py in C, compiled by the system's C compiler, packed as sun.fmu.

    python examples/fmu_grid.py            # makes sun.fmu here
    cosim run examples/fmu_grid.py --until 2h
"""

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

from cosim.scenario import Member
from cosim.scenarios.ieee33 import SCENARIO as IEEE33

SOURCE = Path(__file__).with_name("fmu_grid.c")
VARIABLES = """
  <ScalarVariable name="P_load" valueReference="0" causality="input" variability="continuous"
      description="all that is drawn"><Real unit="MW" start="0"/></ScalarVariable>
  <ScalarVariable name="sun_max" valueReference="1" causality="parameter" variability="fixed"
      description="most that the sun gives"><Real unit="MW" start="3"/></ScalarVariable>
  <ScalarVariable name="dirty" valueReference="2" causality="parameter" variability="fixed"
      description="intensity of all other power"><Real unit="g/(kW.h)" start="800"/></ScalarVariable>
  <ScalarVariable name="nci" valueReference="3" causality="output" variability="continuous" initial="calculated"
      description="carbon intensity of what is consumed"><Real unit="g/(kW.h)"/></ScalarVariable>
  <ScalarVariable name="loss" valueReference="4" causality="output" variability="continuous" initial="calculated"
      description="share of the load that is lost"><Real/></ScalarVariable>"""
DESCRIPTION = f"""<?xml version="1.0" encoding="UTF-8"?>
<fmiModelDescription fmiVersion="2.0" modelName="SunGrid" guid="{{aidc-cosim-sun-grid}}">
 <CoSimulation modelIdentifier="sun" canHandleVariableCommunicationStepSize="true"/>
 <UnitDefinitions>
  <Unit name="MW"><BaseUnit kg="1" m="2" s="-3" factor="1e6"/></Unit>
  <Unit name="g/(kW.h)"><BaseUnit m="-2" s="2" factor="2.7777777777777777e-10"/></Unit>
 </UnitDefinitions>
 <ModelVariables>{VARIABLES}
 </ModelVariables>
 <ModelStructure><Outputs><Unknown index="4"/><Unknown index="5"/></Outputs>
  <InitialUnknowns><Unknown index="4"/><Unknown index="5"/></InitialUnknowns></ModelStructure>
</fmiModelDescription>
"""


def compiler() -> str | None:
    """The system's C compiler; None where there is none, or no FMPy, whose headers of FMI the source includes."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None) if find_spec("fmpy") else None


def build(path: Path, description: str = DESCRIPTION) -> Path:
    """Compile the source and write the FMU."""
    import fmpy

    program, library = compiler(), path.with_suffix(fmpy.sharedLibraryExtension)
    if program is None:
        sys.exit("fmu_grid needs a C compiler (cc, gcc or clang)")
    headers = Path(fmpy.__file__).with_name("c-code")
    subprocess.run([program, "-shared", "-fPIC", "-O1", f"-I{headers}", str(SOURCE), "-o", str(library), "-lm"],
                   check=True)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("modelDescription.xml", description)
        file.write(library, f"binaries/{fmpy.platform}/sun{fmpy.sharedLibraryExtension}")
    library.unlink()
    return path


PORTS = {"Bus": {"p_load_kw": "P_load", "q_load_kvar": None, "nci_kg_per_kwh": "nci"}}
_GRID = Member(simulator="sun.fmu", step_s="15min", entities={"Bus": "network"},
               params={"ports": PORTS, "start_values": {"sun_max": 3.0, "dirty": 800.0}})
SCENARIO = IEEE33.replace(name="fmu_grid", about="three data centers on a grid that is an FMU",
                          members={**IEEE33.members, "grid": _GRID})

if __name__ == "__main__":
    print(f"wrote {build(Path('sun.fmu'))}")
