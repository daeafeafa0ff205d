"""Job classes that follow from a table of jobs: one per class of the file and number of GPUs, from two patterns."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cosim.errors import ScenarioError, listed
from cosim.simulators.fleet import JobClass
from cosim.simulators.workload.job_log import JobLog
from cosim.simulators.workload.traces import TokenWork
from cosim.units import MIN_S, format_time

Kind = Literal["train", "inf"]

MOST_CLASSES = 12
"""Classes that are made at most; each has GPUs, queues and shares of its own."""
_INFERENCE = re.compile(r"(?<![a-z])(inf|infer|inference|serv|serving|chat|search|requests?|online|code|rag)(?![a-z])|"
                        r"conversation|chatbot|api log")
_OFFLINE = re.compile(r"offline|batch")
_INFERENCE_LAYOUTS = ("Alibaba GPU trace of 2025",)
_LONGEST_NAME = 32


@dataclass(frozen=True)
class FileJobs:
    """The jobs of a file as those of a scenario, in the order of their arrival.

    names     ids of the file; class_names: of the scenario, one per job; origin: where each comes from, '' unknown
    arrival_s, work_to, deadline_s   deadline as an instant on the arrival's scale
    classes   class -> its row of shared.job_classes
    `said`    how classes, GPUs and deadlines came about
    """

    names: list[str]
    priority: list[str]
    origin: list[str]
    source_class: list[str]
    class_names: np.ndarray
    arrival_s: np.ndarray
    work_to: np.ndarray
    deadline_s: np.ndarray
    classes: dict[str, JobClass]
    said: list[str]


@dataclass(frozen=True)
class ClassRules:
    """What a file leaves open: patterns of the two kinds, kinds of its classes by name, tokens, deadlines, the GPUs of
    the largest site; the classes of the scenario's own (`known`), and those that were made of this file before, whose
    figures hold (`made`)."""

    training: JobClass
    inference: JobClass
    kinds: Mapping[str, Kind]
    tokens: TokenWork
    deadline_run_ratio: float
    most_gpus: int
    known: Mapping[str, JobClass]
    made: Mapping[str, JobClass]

    def patience_s(self, name: str, job_class: JobClass) -> float:
        """After which time a job without a deadline is due."""
        if name in self.known:
            return job_class.deadline_s
        return (self.training if job_class.kind == "train" else self.inference).deadline_s


def jobs_of(log: JobLog, rules: ClassRules) -> FileJobs:
    """Classes, works and deadlines of a file's jobs.

    A job whose class is one of `known` by its name belongs to it. Of all others a class is made per name and number of
    GPUs, which a job holds from start to finish; where these would be more than `MOST_CLASSES`, GPUs are rounded up to
    powers of two, and then the names go, too. A fraction of a GPU holds a whole one for its GPU time. Work is work_to,
    else GPU time at the speed of the class, else that of the tokens. A class's deadline is the longest of its jobs,
    each of which has its own.
    """
    said: list[str] = []
    gpus = _whole_gpus(log, rules, said)
    names = _class_names(log, gpus, rules, said)
    classes, works = {}, np.empty(len(log))
    for name in dict.fromkeys(names.tolist()):
        mine = np.flatnonzero(names == name)
        made = _class_of(log, name, mine, int(gpus[mine[0]]), rules)
        works[mine] = _works(log, mine, made, rules)
        classes[name] = made
    due = _deadlines(log, names, works, classes, rules, said)
    for name, made in classes.items():
        mine = names == name
        if name not in rules.known and name not in rules.made:
            longest_s = max(made.deadline_s, float((due[mine] - log.arrival_s[mine]).max()))
            classes[name] = replace(made, work_to=float(works[mine].mean()), deadline_s=longest_s)
    kinds = {"train": "training", "inf": "inference"}
    made_here = [f"{name} ({kinds[c.kind]}, jobs: {np.count_nonzero(names == name)})" for name, c in classes.items()
                 if name not in rules.known]
    if made_here:
        said.insert(0, f"classes by the file: {listed(made_here, 60)}; workload.kinds.NAME=inf or train says otherwise")
    return FileJobs(log.name, log.priority, log.origin, log.job_class, names, log.arrival_s, works, due, classes, said)


def _whole_gpus(log: JobLog, rules: ClassRules, said: list[str]) -> np.ndarray:
    """GPUs that each job holds; of requests by tokens those of the pattern."""
    by_tokens = np.isfinite(log.tokens).all(axis=1)
    usual = np.where(by_tokens, rules.inference.gpus_per_block, 1)
    gpus = np.where(np.isnan(log.gpus), usual, np.ceil(log.gpus - 1e-9)).astype(int)
    part = np.isfinite(log.gpus) & (log.gpus % 1.0 != 0.0)
    if part.any():
        said.append(f"{part.sum()} jobs had a fraction of a GPU and hold whole ones here, for their GPU time")
    if (large := gpus > rules.most_gpus).any():
        said.append(f"{large.sum()} jobs had more than the {rules.most_gpus} GPUs of the largest site; they run on "
                    f"{rules.most_gpus}, for their GPU time")
        gpus = np.minimum(gpus, rules.most_gpus)
    return np.maximum(gpus, 1)


def _class_names(log: JobLog, gpus: np.ndarray, rules: ClassRules, said: list[str]) -> np.ndarray:
    """The class of each job."""
    own = [name if name in rules.known else _plain(name) or "job" for name in log.job_class]
    rest = np.array([name not in rules.known for name in own])
    sizes = gpus.copy()
    if len({(own[k], sizes[k]) for k in np.flatnonzero(rest)}) > MOST_CLASSES:
        rounded = np.minimum(2 ** np.ceil(np.log2(sizes)).astype(int), rules.most_gpus)
        changed = rest & (rounded != sizes)
        sizes = np.where(rest, rounded, sizes)
        if changed.any():
            said.append(f"the file has more than {MOST_CLASSES} classes by name and GPUs: GPUs are rounded up to "
                        f"powers of two, of {changed.sum()} jobs, for their GPU time")
    if len({(own[k], sizes[k]) for k in np.flatnonzero(rest)}) > MOST_CLASSES:
        said.append(f"the file's {len({own[k] for k in np.flatnonzero(rest)})} classes by name are one per kind here; "
                    "their names stay in the table of the jobs' names")
        own = [name if name in rules.known else ("inference" if _kind(log, k, rules) == "inf" else "training")
               for k, name in enumerate(own)]
    gpus[:] = sizes
    several = Counter(name for name, _ in {(own[k], sizes[k]) for k in np.flatnonzero(rest)})
    return np.array([name if not rest[k] or several[name] == 1 else f"{name}_{sizes[k]}gpu"
                     for k, name in enumerate(own)], dtype=object)


def _plain(name: str) -> str:
    """A file's class as a name that a path of fields takes."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")[:_LONGEST_NAME].strip("_")


def _kind(log: JobLog, k: int, rules: ClassRules) -> Kind:
    """Whether a job is training or inference: by the rules for its class, by tokens, by its class's name."""
    source = log.job_class[k]
    for name in (source, _plain(source)):
        if name in rules.kinds:
            return rules.kinds[name]
    if np.isfinite(log.tokens[k]).all() or log.layout in _INFERENCE_LAYOUTS:
        return "inf"
    words = source.lower().replace("_", " ").replace("-", " ")
    return "inf" if _INFERENCE.search(words) and not _OFFLINE.search(words) else "train"


def _class_of(log: JobLog, name: str, mine: np.ndarray, gpus: int, rules: ClassRules) -> JobClass:
    """The class that is there, or one from the pattern of its kind; its work and deadline are set later."""
    if name in rules.known:
        if rules.known[name].kind == "llm":
            raise ScenarioError(f"job_classes.{name} is of kind llm, and a table of jobs has no requests for it; name "
                                "the class otherwise, or play the file by "
                                "workload.simulator=cosim.simulators.workload.llm_requests:LlmRequests")
        return rules.known[name]
    if name in rules.made:
        return rules.made[name]
    pattern = rules.inference if _kind(log, int(mine[0]), rules) == "inf" else rules.training
    return replace(pattern, gpus_per_block=gpus)


def _works(log: JobLog, mine: np.ndarray, job_class: JobClass, rules: ClassRules) -> np.ndarray:
    """Work of some jobs of one class, TO."""
    by_time = log.gpu_s[mine] * job_class.to_per_gpu_min / MIN_S
    by_tokens = rules.tokens.work_to(log.tokens[mine, 0], log.tokens[mine, 1])
    given = log.work_to[mine]
    return np.where(np.isfinite(given), given, np.where(np.isfinite(by_time), by_time, by_tokens))


def _deadlines(log: JobLog, names: np.ndarray, works: np.ndarray, classes: Mapping[str, JobClass], rules: ClassRules,
               said: list[str]) -> np.ndarray:
    """When each job is due; those without a deadline after their class's, or so many times their shortest run."""
    due, short, run_s = log.deadline_s.copy(), 0, np.empty(len(log))
    for name, job_class in classes.items():
        mine = names == name
        run_s[mine] = works[mine] / job_class.top_to_per_s(max(rules.most_gpus, job_class.gpus_per_block))
        waits = np.maximum(rules.patience_s(name, job_class), rules.deadline_run_ratio * run_s[mine]
                           if job_class.kind == "train" else 0.0)
        due[mine] = np.where(np.isnan(due[mine]), log.arrival_s[mine] + waits, due[mine])
        if job_class.kind == "train":
            short += int(np.count_nonzero(due[mine] - log.arrival_s[mine] < run_s[mine]))
    if (without := int(np.isnan(log.deadline_s).sum())):
        mine = set(names[np.isnan(log.deadline_s)].tolist())
        common = sorted({f"{format_time(rules.patience_s(name, c))} ({'finish' if c.kind == 'train' else 'start'} of "
                         f"{'training' if c.kind == 'train' else 'inference'})"
                         for name, c in classes.items() if name in mine})
        said.append(f"{without} of {len(log)} jobs have no deadline: due {', '.join(common)} after they arrive, "
                    f"training {rules.deadline_run_ratio:g} times its run time after it if that is later; --set "
                    "workload.training.deadline_s=, .inference.deadline_s= or .deadline_run_ratio= change it")
    if short:
        said.append(f"{short} jobs are due sooner than they can run, and will be dropped")
    return due


def end_s(jobs: FileJobs) -> float:
    """When the last job has ended by its deadline, on the arrival's scale, s."""
    last = -math.inf
    for name, job_class in jobs.classes.items():
        mine = jobs.class_names == name
        run_s = 0.0 if job_class.kind == "train" else jobs.work_to[mine] / job_class.speed_to_per_s(1)
        last = max(last, float((jobs.deadline_s[mine] + run_s).max()))
    return last
