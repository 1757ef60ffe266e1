"""Compute what a training job asks a cluster for: memory, time, GPUs and CPUs.

They follow from the model, the devices and the attempt by the formulas of `rtt plan`, and from the user's one short
file, profiles/slurm/site.yaml. No torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rtt import places
from rtt.errors import UserError
from rtt.planner import costs, memory
from rtt.planner.gpus import DEVICES, device_of
from rtt.planner.plan import Plan
from rtt.study.model_file import ModelFile
from rtt.study.schema import Study
from rtt.study.specs import AttackSpec, UnlearnSpec
from rtt.study.strict import Strict
from rtt.yaml_files import read_yaml

SITE = places.OWN / "profiles" / "slurm" / "site.yaml"
EXAMPLE = places.SHIPPED / "profiles" / "slurm" / "site.example.yaml"
NO_ACCOUNT = "none"

LEAST_MB = 400  # a job starts Snakemake twice, which needs this much
# Assumed: what a job needs (Snakemake twice, shell, launcher), and each of its processes (Python, torch; with CUDA).
JOB_MB, PROCESS_MB, CUDA_PROCESS_MB = 500, 1000, 4000
MARGIN = 1.2
UNKNOWN_MB, UNKNOWN_HOURS = 64_000, 24.0  # for a model whose file gives no `parameters`
START_MINUTES = 15  # for imports, loading the model and saving
CPU_FLOPS = 5e9  # assumed per second and thread; a miniature needs less than START_MINUTES in any case
SLACK = 2.0  # a factor on the plan's hours, which are an estimate
SHARED = 0.8  # share of the ideal speed-up that several devices reach on one job
DISK = 200e6  # bytes per second, assumed, with which a state is saved before the time limit
NOTICE = 60  # seconds before the time limit at which a job is warned, at least


class Site(Strict):
    """What the user of a cluster must say: profiles/slurm/site.yaml."""

    account: str | None = Field(None, description="what jobs are billed to; none: this cluster has no accounts")
    partition: str | None = Field(None, description="null: the cluster's default")
    gpu_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")] | None = Field(
        None, description="as in `sinfo -o %G`: gpu:h100:4 is h100; null: any"
    )
    qos: str | None = None
    # YAML reads 24:00:00 as 86400, which is longer than any partition allows.
    max_hours: Annotated[float, Field(gt=0, le=2000)] = Field(24, description="the partition's longest job, in hours")
    max_memory_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="of a node; null: no limit is known")
    cpus_per_gpu: Annotated[int, Field(ge=1)] = 4


def read_site(path: Path = SITE) -> Site:
    """Return the user's site file, or the defaults if there is none. Raises UserError that names the key."""
    if not path.is_file():
        return Site()
    try:
        return Site.model_validate(read_yaml(path, "site file", "account, partition, gpu_model, ..."))
    except ValidationError as error:
        keys = f"unknown key; allowed: {', '.join(Site.model_fields)}"
        lines = [
            f"{path}: {'.'.join(map(str, e['loc']))}: "
            + (keys if e["type"] == "extra_forbidden" else f"{e['msg']} (found {e['input']!r})")
            for e in error.errors()
        ]
        raise UserError("\n".join(lines)) from None


def site_file(profile: Path) -> Path:
    """Return the site file that goes with a profile: beside it, or where jobs look for that of an installed profile."""
    return SITE if places.INSTALLED and profile.is_relative_to(places.SHIPPED) else profile / SITE.name


def to_make(path: Path) -> str:
    """Return the command that makes a site file."""
    if places.INSTALLED:
        return f"mkdir -p {path.parent}; cp {EXAMPLE} {path}, and edit"
    return f"cp {path.with_suffix('.example.yaml')} {path}, and edit"


def account_hint(site: Site, path: Path = SITE) -> str | None:
    """Return what to do about an account that is not set; None if one is set."""
    if site.account:
        return None
    todo = f"set `account` in {path}" if path.is_file() else to_make(path)
    return (
        f"no SLURM account is set: if sbatch refuses the jobs, {todo}. `sacctmgr show associations user=$USER "
        f"format=account,partition` lists yours; `account: {NO_ACCOUNT}` says that this cluster has none"
    )


class Resources:
    """The resources of a study's training jobs. Relative paths start from `root`."""

    def __init__(self, study: Study, site: Site, root: str | Path = "."):
        self.study, self.site, self.root = study, site, root
        self.gpus = study.gpus

    @property
    def cpus(self) -> int:
        """Return the CPUs that a job asks for on each node."""
        return self.gpus * self.site.cpus_per_gpu or self.study.threads * self.study.devices

    @cached_property
    def _plan(self) -> Plan:
        if not self.gpus:
            return Plan(self.study, device_of("cpu", CPU_FLOPS * self.study.threads), root=self.root)
        # The last device whose name the model's begins with; for an unknown model the slowest that fits the paper's.
        names = [name for name in DEVICES if (self.site.gpu_model or "").lower().startswith(name.split("-")[0])]
        return Plan(self.study, device_of(names[-1] if names else "a100-40gb"), root=self.root)

    def _cost(self, spec) -> tuple[float, list[memory.Phase]]:
        """Return a run's hours on one device, and its training phases."""
        plan = self._plan
        plan.phases = {}
        if isinstance(spec, UnlearnSpec):
            bill = plan.trajectory(spec)
        elif isinstance(spec, AttackSpec):
            bill = plan.attack(spec, plan.checkpoints(spec)[1])
        else:
            bill = plan.source(spec)
        return bill.hours, list(plan.phases.values())

    @staticmethod
    def _size(spec) -> int | None:
        """Return the number of parameters of a run's model, None if its file does not say."""
        model = spec.model if hasattr(spec, "model") else spec.source.model
        return None if isinstance(model, ModelFile) and model.parameters is None else costs.parameters(model)

    def too_large(self) -> str | None:
        """Return why some training cannot fit the GPU or the node that the site file names; None if it may fit."""
        model, site = self.study.model, self.site
        if isinstance(model, ModelFile) and model.parameters is None:
            return None
        plan = self._plan
        _ = plan.stages  # this fills plan.phases
        phases = [plan.memory(phase) for phase in plan.phases.values()]
        name = (site.gpu_model or "").lower()
        limits = [device.memory for key, device in DEVICES.items() if name.startswith(key.split("-")[0])]
        if self.gpus and limits and phases:
            most = max(phases, key=lambda phase: phase["needed"])
            if most["needed"] > max(limits):
                return (
                    f"{most['stage']} needs {most['needed'] / 1e9:.0f} GB of each GPU, {site.gpu_model} (gpu_model in "
                    f"{SITE.name}) has {max(limits) / 1e9:.0f} GB"
                )
        for phase in phases if site.max_memory_gb else ():
            on_host = phase["host"] + (0 if self.gpus else phase["total"] * self.study.devices)
            if on_host > site.max_memory_gb * 1e9:
                return (
                    f"{phase['stage']} needs {on_host / 1e9:.0f} GB of host memory, a node has "
                    f"{site.max_memory_gb:g} GB (max_memory_gb in {SITE.name})"
                )
        return None

    def mem_mb(self, spec, attempt: int = 1) -> int:
        """Return a job's host memory on each node in MB, at most `max_memory_gb`.

        The second attempt asks for half as much again, and later ones for twice as much, since most attempts have other
        reasons than memory.
        """
        grown = 1 + min(attempt - 1, 2) / 2
        most = (self.site.max_memory_gb or math.inf) * 1000
        if (size := self._size(spec)) is None:
            return round(min(UNKNOWN_MB * grown, most))
        _, phases = self._cost(spec)
        launch = self._plan.launch
        held = launch.on_node * size * 4.0  # a model that is only scored is loaded in fp32 at most
        for phase in phases:
            on_host = memory.in_host(phase, launch)
            if not self.gpus:
                on_host += launch.on_node * sum(memory.on_device(phase, launch).values())
            held = max(held, on_host)
        base = JOB_MB + launch.on_node * (CUDA_PROCESS_MB if self.gpus else PROCESS_MB)
        asked = (base + MARGIN * held / 1e6) * grown
        return round(min(max(LEAST_MB, math.ceil(asked / 100) * 100), most))

    def runtime(self, spec, attempt: int = 1) -> int:
        """Return a job's time limit in minutes. Attempt n asks for n times as much, up to the partition's limit."""
        most = self.site.max_hours * 60
        hours = self._cost(spec)[0] if self._size(spec) else UNKNOWN_HOURS
        devices = self.study.processes
        minutes = 60 * SLACK * hours / (1 if devices == 1 else SHARED * devices)
        minutes += START_MINUTES + self.notice(spec) / 60
        return math.ceil(min(minutes * attempt, most))

    def notice(self, spec) -> int:
        """Return how many seconds before the time limit a job is warned, so that it can save its state."""
        phases = self._cost(spec)[1] if self._size(spec) else []
        state = max((memory.state_on_disk(phase, self._plan.launch) for phase in phases), default=0.0)
        return NOTICE * max(1, math.ceil(state / DISK / 60))

    def of(self, specs: Mapping) -> dict[str, int | str | Callable]:
        """Return the resources of a rule whose runs are `specs` ({run: spec}), as Snakemake takes them."""
        return self._asked(lambda wildcards: [specs[wildcards.run]])

    def together(self, specs: Sequence) -> dict[str, int | str | Callable]:
        """Return the resources of a rule that has one job, which does these runs one after another."""
        return self._asked(lambda wildcards: specs)

    def _asked(self, done: Callable) -> dict[str, int | str | Callable]:
        site = self.site

        def minutes(wildcards, attempt) -> int:
            return min(sum(self.runtime(spec, attempt) for spec in done(wildcards)), math.ceil(site.max_hours * 60))

        found: dict[str, int | str | Callable] = {
            "mem_mb": lambda wildcards, attempt: max(self.mem_mb(spec, attempt) for spec in done(wildcards)),
            "runtime": minutes,
            "slurm_extra": lambda wildcards: (
                f"--signal=TERM@{max(map(self.notice, done(wildcards)))} --open-mode=append"
            ),
            "nodes": self.study.nodes,  # otherwise SLURM might spread the GPUs over several nodes
            "cpus_per_task": self.cpus,
        }
        found |= self._on_several_nodes() if self.study.nodes > 1 else self._on_one_node()
        if site.account and site.account != NO_ACCOUNT:
            found["slurm_account"] = site.account
        found |= {"slurm_partition": site.partition} if site.partition else {}
        return found | ({"qos": site.qos} if site.qos else {})

    def _on_one_node(self) -> dict[str, int | str]:
        """Return what one task asks for: the GPUs of the whole job."""
        model = {"gpu_model": self.site.gpu_model} if self.gpus and self.site.gpu_model else {}
        return {"gpu": self.gpus, **model}

    def _on_several_nodes(self) -> dict[str, int | str]:
        """Return what one task on each node asks for: the GPUs of a node (`gres`).

        With `mpi` the executor starts the step itself on the first node alone, outside of any srun, so that the step
        can call srun for all nodes (rules/common.smk). `tasks_per_gpu: 0` keeps it from asking for tasks by GPUs.
        """
        found: dict[str, int | str] = {"mpi": "srun", "tasks": self.study.nodes, "tasks_per_gpu": 0}
        if self.gpus:
            found["gres"] = ":".join(filter(None, ("gpu", self.site.gpu_model, str(self.gpus))))
        return found
