"""python -m cosim.serve package.module:Class ADDRESS: run a simulator as a process of its own.

For members that should run elsewhere: "cmd: %(python)s -m cosim.serve simulators.grid.adapter:CefDispatch %(addr)s"
starts one beside the run; on another machine, `python -m cosim.serve --remote pkg.mod:Class 0.0.0.0:5678` waits for a
scenario with "connect: thathost:5678". It listens where it is told and nowhere else.
"""

from __future__ import annotations

import asyncio
import sys

import mosaik_api_v3

from cosim.console import fail
from cosim.errors import CosimError, ModelError, ScenarioError
from cosim.resolve import load

USAGE = "usage: python -m cosim.serve [--remote] package.module:Class HOST:PORT"
PATIENCE_S = 3600
"""How long --remote waits for a scenario to connect."""


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code when the run is over."""
    words = list(sys.argv[1:] if argv is None else argv)
    remote = "--remote" in words
    words = [w for w in words if w != "--remote"]
    try:
        if len(words) != 2:
            raise ScenarioError(USAGE)
        host, _, port = words[1].rpartition(":")
        if not (host and port.isdigit()):
            raise ScenarioError(f"'{words[1]}' is not HOST:PORT; {USAGE}")
        simulator = load(words[0], "simulator")()
        if not isinstance(simulator, mosaik_api_v3.Simulator):
            raise ScenarioError(f"'{words[0]}' is no simulator; write a subclass of mosaik_api_v3.Simulator or "
                                "cosim.adapter.Adapter")
        asyncio.run(_serve(simulator, host, int(port), remote))
    except CosimError as err:
        return fail(err)
    except (OSError, OverflowError, RuntimeError) as err:
        where = f"{words[0]} at {words[1]}"
        return fail(ModelError(f"{where}: {err}; choose another address, or start the other side first"))
    except KeyboardInterrupt:
        return 130
    return 0


async def _serve(simulator: mosaik_api_v3.Simulator, host: str, port: int, remote: bool) -> None:
    if remote:
        print(f"{type(simulator).__name__} waits for a scenario at {host}:{port}", flush=True)
        await mosaik_api_v3.run_as_server(simulator, host, port, start_timeout=PATIENCE_S)
    else:
        await mosaik_api_v3.run_as_client(simulator, host, port)


if __name__ == "__main__":
    sys.exit(main())
