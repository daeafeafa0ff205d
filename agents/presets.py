"""Settings of a training that go together, by one word: `cosim train --preset`.

The study does not print its hyper-parameters; `paper` takes those of the MAT authors' published code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Preset:
    """settings: fields of the scenario; learn: of the learner. Where a field is set by name, that holds."""

    about: str
    settings: Mapping[str, str] = field(default_factory=dict)
    learn: Mapping[str, str | None] = field(default_factory=dict)
    by_method: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The same of single methods."""


PRESETS = {
    "ours": Preset("the defaults"),
    "paper": Preset(
        "Algorithm 1 as printed: the states (25) and (27), the reward (32) of the team for every agent, deferrals and "
        "rounding as printed, the GPUs of a kind used together (14); no twins, no guard, no shaping, no schedules",
        settings={
            "controller.observation": "paper", "controller.guard_slack_min": "null",
            "controller.rounding": "stateless", "controller.long_deferrals": "as_printed",
            "controller.gpu_shares": "pooled",
            "controller.reward.relative": "false", "controller.reward.looming": "false",
            "controller.reward.manager_credit": "all", "controller.reward.c6_per_inf_wait_min": "0"},
        learn={
            "context_for_all": "true", "credit": "team", "twins": "1", "center_reward": "false",
            "std_start": "0.37", "std_end": None,
            "learning_rate": "5e-4", "learning_rate_end": "1", "epochs": "15", "minibatches": "1", "discount": "0.99",
            "gae_lambda": "0.95", "value_lambda": "0.95", "entropy": "0.01", "kl_limit": None},
        by_method={"transformer": {"history_steps": "16"}}),
}
