"""cosim serve package.module:Class HOST:PORT: run a simulator as a process of its own.

For members that should run elsewhere: "cmd: %(python)s -m cosim.serve cosim.simulators.grid.adapter:CefDispatch
%(addr)s" starts one beside the run; on another machine, `cosim serve --remote pkg.mod:Class 0.0.0.0:5678`
waits for a scenario with "connect: thathost:5678". It binds the given address only, and beyond this
machine only with a secret: `--secret VARIABLE` names an environment variable with one that the member (`secret`)
shares.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

import mosaik_api_v3

from cosim.console import command_parser, run_command
from cosim.drivers.remote import GuardedChannel, address_of, is_loopback, is_run, secret_of
from cosim.errors import ModelError, ScenarioError
from cosim.imports import load

PATIENCE_S = 3600
"""How long --remote waits for a scenario to connect."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = command_parser("serve", epilog="Exit codes: 0 the run is over, 2 wrong request, 3 the connection failed, "
                       "130 stopped.")
    p.add_argument("simulator", metavar="PACKAGE.MODULE:CLASS", help="a subclass of cosim.adapter.Adapter or of "
                   "mosaik's Simulator")
    p.add_argument("address", metavar="HOST:PORT", help="where the run listens, as %%(addr)s gives it; with --remote, "
                   "where to listen (port 0: any that is free)")
    p.add_argument("--remote", action="store_true", help="wait for a scenario with 'connect: HOST:PORT' instead of "
                   "connecting to one")
    p.add_argument("--secret", metavar="VARIABLE", help="environment variable with the secret that the member's "
                   "'secret' shares; needed beyond this machine")
    return p


def main(argv: list[str] | None = None) -> int:
    """The program; returns its exit code when the run is over."""
    return run_command(parser, _offer, argv)


def _offer(args: argparse.Namespace) -> int:
    where = f"{args.simulator} at {args.address}"
    secret = secret_of(args.secret, "--secret") if args.secret is not None else None
    address = address_of(args.address)
    if address is None:
        raise ScenarioError(f"'{args.address}' is not HOST:PORT; write 127.0.0.1:5678, for example")
    simulator = load(args.simulator, "simulator")()
    if not isinstance(simulator, mosaik_api_v3.Simulator):
        raise ScenarioError(f"'{args.simulator}' is no simulator; write a subclass of mosaik_api_v3.Simulator or "
                            "cosim.adapter.Adapter")
    if args.remote and secret is None and not is_loopback(address[0]):
        raise ScenarioError(f"{args.address} is reached from other machines, and whoever connects runs this simulator; "
                            "give --secret VARIABLE, or listen at 127.0.0.1")
    try:
        asyncio.run(_serve(simulator, *address, args.remote, secret))
    except mosaik_api_v3.connection.EndOfRequests:
        raise ModelError(f"{where}: the other side closed the connection") from None
    except (OSError, OverflowError, RuntimeError) as err:
        raise ModelError(f"{where}: {err}; choose another address, or start the other side first") from err
    return 0


async def _serve(simulator: mosaik_api_v3.Simulator, host: str, port: int, remote: bool, secret: bytes | None) -> None:
    if not remote:
        await mosaik_api_v3.run_as_client(simulator, host, port)
        return
    channel = await _first_run(type(simulator).__name__, host, port, secret)
    try:
        compliant = mosaik_api_v3.check_api_compliance(simulator)
        await mosaik_api_v3.run_simulator(channel, simulator, api_compliant=compliant)
    finally:
        with contextlib.suppress(OSError):
            await channel.close()


async def _first_run(what: str, host: str, port: int, secret: bytes | None) -> GuardedChannel:
    """The connection of the first scenario that comes; any other connection is closed, with a message."""
    came: asyncio.Future[GuardedChannel] = asyncio.get_running_loop().create_future()

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await is_run(reader, writer, secret)
        if first is None or came.done():
            print(f"turned away {writer.get_extra_info('peername')[0]}: it is no scenario"
                  f"{' that knows the secret' if secret else ''}, or came second", file=sys.stderr, flush=True)
            writer.close()
            return
        came.set_result(GuardedChannel(reader, writer, what, first))

    server = await asyncio.start_server(on_connect, host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"{what} waits for a scenario at {shown}:{server.sockets[0].getsockname()[1]}", flush=True)
    try:
        return await asyncio.wait_for(came, PATIENCE_S)
    except TimeoutError:
        raise ModelError(f"no scenario connected within {PATIENCE_S} s") from None
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
