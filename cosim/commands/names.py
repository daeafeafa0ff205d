"""The subcommands of `cosim`: the module that is each, and what it does.

Modules are named by string: nothing is imported before its command is called, and the frame depends on no model.
"""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """module: has `parser()` and `main(argv) -> exit code`; about: one sentence."""

    module: str
    about: str


ON_NETWORK = "cosim.simulators.own_network:on_network"
"""What puts a scenario on another network, for `cosim new --network`."""
COMMANDS = {
    "run": Command("cosim.run", "Run a scenario, store its trace and say how it went."),
    "sweep": Command("cosim.campaign.sweep_command", "Run a scenario at many values of its fields, over seeds, and "
                     "compare."),
    "new": Command("cosim.commands.new", "Write a scenario file of your own that starts from another scenario."),
    "report": Command("cosim.report", "Make one page of pictures from traces, or files for print."),
    "trace": Command("cosim.trace.command", "Look into traces: ls, diff, export, summary, verify, rescue."),
    "receipts": Command("cosim.simulators.analysis.receipts", "Show what each job of a trace used and emitted."),
    "serving-curves": Command("cosim.simulators.analysis.serving_curves",
                              "Compare an LLM replica's time and energy per token with measurements."),
    "check": Command("cosim.check", "Check a simulator against the contract of its role."),
    "serve": Command("cosim.serve", "Offer a simulator to a scenario that runs in another process."),
    "train": Command("cosim.agents.train", "Train a team of agents on a scenario or a PettingZoo environment."),
    "evaluate": Command("cosim.agents.evaluate", "Compare policies by the metrics of Table II, over seeds."),
    "study": Command("cosim.agents.study.command",
                     "Reproduce or refute the paper's evaluation, claim by claim."),
    "curves": Command("cosim.agents.curves", "Show learning curves of training runs."),
    "pretrained": Command("cosim.agents.pretrained.__main__", "Show the trained teams that ship."),
    "spaces": Command("cosim.agents.action_spaces", "Show the sizes of the action spaces (Table III)."),
    "lambda-sweep": Command("cosim.simulators.analysis.lambda_sweep",
                            "Sweep the weight of carbon in the dispatch over a day (Fig. 11(b))."),
}
"""By name, in the order of `cosim --help`."""
