"""Hyper-parameters of the learners, each with where its default comes from.

Sources: [MAT] the multi-agent transformer's published training code, [on-policy] the MAPPO authors' code, [here]
measured or reasoned for one-minute steps of a data-centre fleet. All can be set: `--set learn.entropy=0.01`.

Rows: M11.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cosim.params import params

METHODS = ("mat", "mat-dec", "transformer", "mappo")
"""mat: shared encoder, autoregressive decoder. mat-dec: shared encoder, one decoder per agent type, no autoregression.
transformer: parallel attention, over agents or over an agent's own past, actor and critic apart. mappo: one MLP actor
per type, a central MLP critic."""


@params
class Learning:
    """One training setup: method, network, distributions, PPO."""

    method: Annotated[Literal["mat", "mat-dec", "transformer", "mappo"], Field(description="which policy")] = "mat"

    width: Annotated[int, Field(ge=8, le=1024, description="numbers per token, and per hidden layer [MAT]")] = 64
    heads: Annotated[int, Field(ge=1, le=16, description="attention heads; must divide width [MAT]")] = 1
    blocks: Annotated[int, Field(ge=1, le=12, description="attention blocks; hidden layers of mappo [MAT]")] = 1

    context_for_all: Annotated[bool, Field(
        description="followers of mat-dec, transformer and mappo are shown their context (a site the jobs that it was "
        "sent), too, before their heads: the study's state (27) has it whatever the method; mat always shows it "
        "[here]")] = False
    history_steps: Annotated[int, Field(
        ge=1, le=240, description="of a transformer: with more than 1 its agents attend over their own last so many "
        "steps, as in the study, and not over each other; it prints no number of steps [here]")] = 1
    identity: Annotated[bool, Field(description="agents of one type have an embedding of their identity, so that "
                                    "they can differ; [MAT] leaves that to the observation [here]")] = True

    simplex: Annotated[Literal["gaussian", "dirichlet"], Field(
        description="density of shares: Gaussian on logits (fast, tame ratios) or Dirichlet (its density spikes near "
                    "the edges: importance ratios explode) [here]")] = "gaussian"
    std_start: Annotated[float, Field(gt=0, le=3, description="exploration of a fresh policy, in logits; [MAT] has "
                                      "0.37 on actions. 0.6 makes a share 1.8 times larger or smaller; at 0.3 a "
                                      "team takes twice the days to learn to wait at the peak [here]")] = 0.6
    std_end: Annotated[float | None, Field(gt=0, le=3, description="exploration's ceiling at the end of the run, "
                                           "falling from std_start by a constant factor per day: what is learned last "
                                           "is what will be executed. None: no ceiling [here]")] = 0.3
    std_min: Annotated[float, Field(gt=0, le=3, description="exploration never falls below this [here]")] = 0.02
    noise_steps: Annotated[int, Field(
        ge=1, le=10_000, description="noise and order are drawn anew every so many steps (and with every rollout): "
        "what a departure from the mean does in a minute is lost in what else happens, what it does in a quarter of an "
        "hour less so (Raffin et al. 2022, smooth exploration) [here]")] = 1
    permute: Annotated[bool, Field(description="followers decide in a random order in every step of training; "
                                   "without it always in the team's order, as [MAT] does")] = True
    frozen_leaders: Annotated[tuple[float, ...] | None, Field(
        description="the leaders' shares are these and are not learned (S-MAT), e.g. 1:2:7; none: learned")] = None

    credit: Annotated[Literal["own", "team"], Field(
        description="own: a site's agent learns from what comes about at its site, the manager from all: what other "
        "sites do is noise to it, and the sum is (32); team: everyone learns from all, as in the study "
        "[here]")] = "own"
    critic: Annotated[Literal["one", "terms"], Field(
        description="one: the critic has one output per agent, the value of all that it is credited with; terms: one "
        "per term of the reward that has a weight (work, cost, carbon, dropped jobs, waits), each normalised by "
        "itself, and an advantage is the sum of the terms' (van Seijen et al. 2017, hybrid reward architecture); not "
        "with --env, whose reward has no known terms [here]")] = "one"
    twins: Annotated[int, Field(
        ge=1, le=64, description="so many environments of a scenario meet the same arrivals, prices and loads, and an "
        "advantage is less its twins' mean: what comes from outside cancels. With 4 of 16 a fresh policy's advantages "
        "spread 30 times less (variance, lambda 0.8; 90 times at 0.95), after Mao et al. 2019, input-driven baselines; "
        "must divide --envs; 1 with --env, whose world nobody can repeat [here]")] = 4
    rollout_steps: Annotated[int, Field(ge=1, le=100_000, description="steps of every environment per update; 16 x 90 "
                                        "keep one update per day of 1440 minutes and decode 16 at a time; with more "
                                        "--envs as many fewer, where none are set [here]")] = 90
    epochs: Annotated[int, Field(ge=1, le=100, description="passes over a rollout; 15 in [MAT], 10 in its continuous "
                                 "tasks, 5 with dexterous hands; 5 halves the cost of an update [MAT]")] = 5
    critic_first: Annotated[int, Field(
        ge=0, description="so many updates learn values alone: a policy that begins well, such as a rule's, is not "
        "moved by a critic that has seen nothing (Silver et al. 2018, residual policy learning) [here]")] = 0
    minibatches: Annotated[int, Field(ge=1, le=1000, description="parts of a pass; 1024-4096 samples each run fastest "
                                      "on a core, but 4 steps on 360 samples each learn more from a day [here]")] = 4
    pieces: Annotated[int, Field(ge=1, le=64, description="a minibatch's gradient is the sum of so many pieces', each "
                                 "a thread's where cores are free; on a GPU it is one. Numbers depend on it as sums do "
                                 "on their order, not on how many cores there are. Pieces should have some hundred "
                                 "samples: every one takes some ms to start [here]")] = 1
    torch_compile: Annotated[bool, Field(description="compile the network's scores with torch.compile: an update then "
                                         "takes two thirds of the time, after some 20 CPU s in each process when it is "
                                         "first compiled; needs a C++ compiler; sums in another order [here]")] = False
    learning_rate: Annotated[float, Field(gt=0, le=1, description="of Adam, all parts; 5e-4 in [MAT] [here]")] = 7e-4
    learning_rate_end: Annotated[float, Field(ge=0, le=1, description="share of it left at the end of the run, falling "
                                              "linearly; 0 is the optional schedule of [on-policy]")] = 0.1
    adam_eps: Annotated[float, Field(gt=0, description="epsilon of Adam [MAT]")] = 1e-5
    discount: Annotated[float, Field(gt=0, le=1, description="gamma per step. [MAT] has 0.99; of one-minute steps that "
                                     "forgets in 100 min, but a job may be deferred by 600 min and dropped at 720: "
                                     "at 0.998 a drop would count a quarter, at 0.9995 it counts 0.7 [here]")] = 0.9995
    center_reward: Annotated[bool, Field(
        description="learn from rewards less their running mean (Naik et al. 2024, Reward Centering): values then are "
                    "what a state is better than usual by, not the sum of a thousand usual rewards that the critic "
                    "would first have to climb to. Ends for good with the first episode that terminates, as then the "
                    "length of an episode counts [here]")] = True
    gae_lambda: Annotated[float, Field(ge=0, le=1, description="lambda of generalised advantages; 0.95 in [MAT]. "
                               "Actions of a minute act at once on power, and through queues that the critic sees: "
                               "at 0.95 what three sites draw in the next 20 min is noise about each decision, and "
                               "a team takes three times the days to wait at the peak; at 0.5 it drops more "
                               "[here]")] = 0.8
    value_lambda: Annotated[float, Field(ge=0, le=1, description="the same of the returns that the critic learns: what "
                                 "waits in a queue is paid for hours later, and at 0.8 news of it travels back by "
                                 "5 min an update: teams then postpone until jobs are dropped [here]")] = 0.95
    clip: Annotated[float, Field(gt=0, lt=1, description="the ratio's trust region, one ratio per agent; 0.2 in [MAT], "
                                 "per dimension there [on-policy]")] = 0.2
    kl_limit: Annotated[float | None, Field(gt=0, description="no further epoch once the policy has moved by this "
                                            "(Kullback-Leibler, mean per agent); None: no such limit. As exploration "
                                            "falls, the same step of a mean is a longer one [here]")] = 0.02
    entropy: Annotated[float, Field(ge=0, description="weight of the entropy, summed over an agent's dimensions; 0.01 "
                                    "in [MAT], 0.001 in its continuous tasks [here]")] = 0.0
    value_weight: Annotated[float, Field(ge=0, description="weight of the value's loss [MAT]")] = 1.0
    value_clip: Annotated[bool, Field(description="clip the value's step like the ratio [MAT]")] = True
    value_loss: Annotated[Literal["huber", "mse"], Field(description="[MAT]: huber")] = "huber"
    huber_delta: Annotated[float, Field(gt=0, description="where Huber's loss turns linear, in standard deviations of "
                                        "the returns [MAT]")] = 10.0
    value_memory: Annotated[float, Field(ge=0, lt=1, description="how much of the returns' running mean and spread an "
                                         "update keeps; [MAT] has 0.99999 per minibatch, which hardly follows a "
                                         "drifting scale [here]")] = 0.95
    max_grad_norm: Annotated[float, Field(gt=0, description="gradients are scaled down to this norm; 10 in [MAT], 0.5 "
                                          "in its continuous tasks [MAT]")] = 10.0

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width = {self.width} must be a multiple of heads = {self.heads}")
        if self.context_for_all and self.simplex == "dirichlet":
            raise ValueError("context_for_all = true needs simplex = gaussian: a Dirichlet share cannot be drawn again "
                             "from the same noise")
        if self.noise_steps > 1 and self.simplex == "dirichlet":
            raise ValueError(f"noise_steps = {self.noise_steps} needs simplex = gaussian: a Dirichlet share cannot be "
                             "drawn again from the same noise")
        if self.history_steps > 1 and self.method != "transformer":
            raise ValueError(f"history_steps = {self.history_steps} needs method = transformer; the attention of "
                             f"{self.method} is over agents")
        if self.std_min > self.std_start:
            raise ValueError(f"std_min = {self.std_min} must be <= std_start = {self.std_start}")
        if self.std_end is not None and not self.std_min <= self.std_end <= self.std_start:
            raise ValueError(f"std_end = {self.std_end} must be from std_min = {self.std_min} to std_start = "
                             f"{self.std_start}, or none")
