"""The one command: its subcommands, their help, errors and progress."""

import io
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_docs import generate
from worlds import GRIDLESS_PY, run

from cosim import __version__
from cosim.commands import new
from cosim.commands.main import main
from cosim.commands.names import COMMANDS
from cosim.console import command_began, command_parser, run_command
from cosim.errors import ScenarioError
from cosim.imports import load
from cosim.progress import ProgressTask, working
from cosim.request import changed, find
from cosim.trace import Trace

ROOT = Path(__file__).parents[2]
HEAVY = ("pandapower", "torch", "gurobipy", "clarabel", "pandas", "numpy", "h5py", "mosaik", "pydantic", "scipy")


def test_every_module_with_a_command_line_is_a_subcommand():
    made = generate().parsers()
    assert made.keys() == {command.module for command in COMMANDS.values()} | {"cosim.commands.main"}
    for name, command in COMMANDS.items():
        assert made[command.module].prog == f"cosim {name}"
        assert made[command.module].description == command.about


def test_help_has_a_line_for_each_and_imports_nothing_heavy():
    """In a process of its own, as this one has imported all of it."""
    code = ("import sys; from cosim.commands.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
            f"print([name for name in {HEAVY} if name in sys.modules])")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
                          env={**os.environ, "COLUMNS": "80"}).stdout
    assert max(map(len, said.splitlines())) <= 80
    for name, command in COMMANDS.items():
        about = r"\s+".join(map(re.escape, command.about.split()))
        assert re.search(rf"^  {name} +{about}$", said, re.MULTILINE)
    assert said.endswith("[]\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_subcommand_has_help_and_says_what_is_wrong_in_a_line(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: cosim {name} ")
    assert main([name, "--no-such-option"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"see cosim {name} --help" in said


def test_version_and_words_that_are_no_command(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"aidc-cosim {__version__}\n"
    assert main([]) == 0
    assert "commands:" in capsys.readouterr().out
    for words, says in ((["repot"], "unknown command 'repot'; did you mean 'report'?"),
                        (["ieee33"], "'ieee33' is a scenario, no command; write cosim run ieee33"),
                        (["my.yaml"], "write cosim run my.yaml"), (["--list"], "unrecognized arguments: --list")):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_a_subcommand_is_its_module(tmp_path, capsys):
    """The same trace and the same words from `cosim trace` as from the module."""
    path = tmp_path / "t.h5"
    assert main(["run", str(GRIDLESS_PY), "--until", "1h", "--driver", "native", "--quiet", "--out", str(path)]) == 0
    capsys.readouterr()
    assert main(["trace", "ls", str(path)]) == 0
    said = capsys.readouterr().out
    assert load("cosim.trace.command:main", "command")(["ls", str(path)]) == 0
    assert capsys.readouterr().out == said
    assert main(["spaces"]) == 0
    assert "3  3.01e39" in capsys.readouterr().out
    assert main(["trace", "ls", str(tmp_path / "none.h5")]) == 5


@pytest.mark.long
def test_the_console_script_imports_modules_of_the_folder_it_is_called_in(tmp_path):
    """As `python -m` does: a simulator beside the scenario, which another process runs."""
    (tmp_path / "flatgrid.py").write_text(
        "from cosim.adapter import Adapter\nfrom cosim.params import params\nfrom cosim.ports import Port\n"
        "@params\nclass NoParams:\n    pass\n"
        "class FlatGrid(Adapter):\n    '''One intensity.'''\n    PARAMS = NoParams\n"
        "    MODELS = {'Bus': (Port('p_load_kw', 'in', 'load', reduce='sum', default=0.0),"
        " Port('q_load_kvar', 'in', 'load', reduce='sum', default=0.0), Port('nci_kg_per_kwh', 'out', 'intensity'))}\n"
        "    def advance(self, time_s, inputs):\n"
        "        return {bus: {'nci_kg_per_kwh': 0.25} for bus in self.entities['Bus']}\n")
    script = Path(sys.executable).with_name("cosim")
    words = ["run", "two_bus", "--use", "grid=flatgrid:FlatGrid", "--until", "15min",
             "--driver", "native", "--out", "flat.h5", "--quiet"]
    code = "import sys; from cosim.commands.main import script; sys.exit(script())"
    command = [str(script)] if script.exists() else [sys.executable, "-I", "-c", code]
    done = subprocess.run([*command, *words], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    with Trace(tmp_path / "flat.h5") as trace:
        assert set(trace["grid/Bus/nci_kg_per_kwh"].ravel()) == {0.25}


def test_errors_of_all_kinds_are_one_line_with_a_code(capsys):
    def raising(err):
        def body(_):
            raise err
        return body

    for err, code, says in ((ScenarioError("no such thing"), 2, "cosim: no such thing"),
                            (KeyboardInterrupt(), 130, "cosim: stopped at once by the user"),
                            (ZeroDivisionError("x\ny"), 1, "cosim: internal error: ZeroDivisionError: x y; report it")):
        assert run_command(lambda: command_parser("run"), raising(err), []) == code
        said = capsys.readouterr().err
        assert said.startswith(says)
        assert said.count("\n") == 1
    assert run_command(lambda: command_parser("run"), raising(ZeroDivisionError("x")), ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_name_that_is_set_twice_is_refused(capsys):
    assert main(["run", "two_bus", "--set", "seed=1", "--set", "seed=2"]) == 2
    assert "--set seed is given twice, as 1 and 2; give it once" in capsys.readouterr().err
    assert main(["run", "two_bus", "--replay", "grid"]) == 2
    assert "--replay grid: write member=FILE" in capsys.readouterr().err


def test_the_first_progress_of_a_command_counts_its_imports(monkeypatch):
    """A line comes at once where the command began an interval ago; only the first progress counts from there."""
    began = []
    assert run_command(None, lambda _: began.extend([command_began(), command_began()]) or 0, []) == 0
    assert began[0] <= time.monotonic()
    assert (began[1], command_began()) == (None, None)
    monkeypatch.setattr("cosim.progress.command_began", lambda: time.monotonic() - 3600.0)
    printed = threading.Event()
    monkeypatch.setattr("cosim.progress.print", lambda text, **_: printed.set() if "1 h 0 min" in text else None,
                        raising=False)
    with working("loading"):
        assert printed.wait(60.0)


def test_progress_is_lines_where_there_is_no_terminal(monkeypatch):
    """Not before the first two seconds, and then with share, time and time left."""
    monkeypatch.setattr("cosim.progress.EVERY_S", 0.01)
    heard = threading.Event()

    class Reader(io.StringIO):
        def write(self, text):
            if "25 %" in text:
                heard.set()
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", reader := Reader())
    with working("counting", 4.0) as progress:
        progress.at(1.0, "counting \x1b[31m")
        assert heard.wait(60.0)
    line = next(line for line in reader.getvalue().splitlines() if "25 %" in line)
    assert re.fullmatch(r"counting \\x1b\[31m: 25 %, \d+ s passed, about \d+ s left", line)
    reader.truncate(0)
    with working("nothing", quiet=True):
        assert "progress" not in {thread.name for thread in threading.enumerate()}


def test_time_left_counts_from_what_was_done_before(monkeypatch):
    """A training that goes on at a half and reaches three quarters in 60 s has 60 s left."""
    monkeypatch.setattr("cosim.progress.monotonic", lambda: 100.0)
    assert ProgressTask("t", 1.0, 0.75, 0.5, began=40.0).line() == "t: 75 %, 1 min 0 s passed, about 1 min 0 s left"
    assert ProgressTask("t", began=-7200.0).line() == "t: 2 h 1 min passed"


def test_new_writes_a_file_that_runs_and_overwrites_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["new", "mine.py", "--from", "two_bus"]) == 0
    assert "cosim run mine.py" in capsys.readouterr().out
    before = (tmp_path / "mine.py").read_text()
    assert '# "controller.policy": \'uniform\',' in before
    mine, origin = find("mine.py"), find("two_bus")
    assert mine == origin.replace(name="mine", about="two_bus with changes of my own")
    (tmp_path / "changed.py").write_text(before.replace('# "seed": 0', '"seed": 5'))
    assert find("changed.py").seed == 5
    for words, says in ((["mine.py"], "mine.py exists and is left as it is"),
                        (["other.txt"], "ends in .py, .yaml, .yml, .json"),
                        (["o.py", "--from", "two_buss"], "did you mean 'two_bus'?"),
                        (["no/such/folder.py"], "cannot write no/such/folder.py")):
        assert main(["new", *words]) == 2
        assert says in capsys.readouterr().err
    assert (tmp_path / "mine.py").read_text() == before


@pytest.mark.parametrize("name", ["ieee33", "ieee33_climate", "azure_llm", "plug_pandapower"])
def test_all_that_new_offers_can_be_set_to_what_it_is(name):
    """With every # taken away the scenario is the one it starts from."""
    text = new.as_code(name, "mine").replace("    # ", "    ")
    made = {}
    exec(compile(text, "mine.py", "exec"), made)
    assert made["SCENARIO"].replace(name="x", about="x") == find(name).replace(name="x", about="x")


def test_what_is_changed_for_a_run_is_what_the_options_say(tmp_path):
    path = run(find("two_bus"), tmp_path / "t.h5", until_s=900).path
    made = changed(find("two_bus"), seed=4, settings={"controller.drain_min": 2}, replays={"grid": path})
    assert (made.seed, made.members["controller"].params["drain_min"]) == (4, 2)
    assert made.members["grid"].params["path"] == str(path)
