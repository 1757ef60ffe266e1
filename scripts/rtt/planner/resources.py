"""What a training job asks a cluster for: memory, time, GPUs and CPUs as functions of the model, the devices and the
attempt, from the formulas of `rtt plan`; and the user's one short file, profiles/slurm/site.yaml. No torch.
"""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rtt.errors import UserError
from rtt.files import read_yaml
from rtt.planner import costs, memory
from rtt.planner.gpus import DEVICES, device_of
from rtt.planner.plan import Plan
from rtt.study.model_file import ModelFile
from rtt.study.schema import Study
from rtt.study.specs import AttackSpec, UnlearnSpec
from rtt.study.strict import Strict

SITE = Path(__file__).resolve().parents[3] / "profiles" / "slurm" / "site.yaml"
NO_ACCOUNT = "none"

LEAST_MB = 400  # below this Snakemake, which a job starts twice, does not fit
# Assumed: of a job (Snakemake twice, shell, launcher) and of each of its processes (Python, torch; CUDA's host part).
JOB_MB, PROCESS_MB, CUDA_PROCESS_MB = 500, 1000, 4000
MARGIN = 1.2
UNKNOWN_MB, UNKNOWN_HOURS = 64_000, 24.0  # of a model whose file gives no `parameters`
START_MINUTES = 15  # imports, loading the model, saving
CPU_FLOPS = 5e9  # a second and thread, assumed; a miniature needs less than START_MINUTES anyway
SLACK = 2.0  # the plan's hours are an estimate
SHARED = 0.8  # of the ideal speed-up, several devices at work on one job
DISK = 200e6  # bytes a second, assumed, at which a state is saved before the time limit
NOTICE = 60  # seconds before the time limit, at least


class Site(Strict):
    """What a cluster's user must say: profiles/slurm/site.yaml."""

    account: str | None = Field(None, description="what jobs are billed to; none: this cluster has no accounts")
    partition: str | None = Field(None, description="null: the cluster's default")
    gpu_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+$")] | None = Field(
        None, description="as in `sinfo -o %G`: gpu:h100:4 is h100; null: any"
    )
    qos: str | None = None
    # YAML reads 24:00:00 as 86400: no partition's jobs are so long.
    max_hours: Annotated[float, Field(gt=0, le=2000)] = Field(24, description="the partition's longest job, in hours")
    max_memory_gb: Annotated[float, Field(gt=0)] | None = Field(None, description="of a node; null: no limit is known")
    cpus_per_gpu: Annotated[int, Field(ge=1)] = 4


def read_site(path: Path = SITE) -> Site:
    """Return the user's file, or an empty one where there is none. Raises UserError that names the key."""
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


def to_make(path: Path) -> str:
    """Return what makes a site file."""
    return f"cp {path.with_suffix('.example.yaml')} {path}, and edit"


def account_hint(site: Site, path: Path = SITE) -> str | None:
    """Return what to do about an account that is not set, None where nothing is to be done."""
    if site.account:
        return None
    todo = f"set `account` in {path}" if path.is_file() else to_make(path)
    return (
        f"no SLURM account is set: if sbatch refuses the jobs, {todo}. `sacctmgr show associations user=$USER "
        f"format=account,partition` lists yours; `account: {NO_ACCOUNT}` says that this cluster has none"
    )


class Resources:
    """The resources of a study's training jobs. root: the folder that relative paths start from."""

    def __init__(self, study: Study, site: Site, root: str | Path = "."):
        self.study, self.site, self.root = study, site, root
        self.gpus = study.gpus

    @cached_property
    def _plan(self) -> Plan:
        if not self.gpus:
            return Plan(self.study, device_of("cpu", CPU_FLOPS * self.study.threads), root=self.root)
        # The longest name that the model's begins with; of an unknown one the slowest that the paper's model fits on.
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
        """Return the number of parameters of a run's model, None where its file doesn't say."""
        model = spec.model if hasattr(spec, "model") else spec.source.model
        return None if isinstance(model, ModelFile) and model.parameters is None else costs.parameters(model)

    def mem_mb(self, spec, attempt: int = 1) -> int:
        """Return a job's host memory in MB. The second attempt asks for half as much more, the third and all others for
        twice as much: most attempts are made for other reasons than memory. At most `max_memory_gb`.
        """
        grown = 1 + min(attempt - 1, 2) / 2
        most = (self.site.max_memory_gb or math.inf) * 1000
        if (size := self._size(spec)) is None:
            return round(min(UNKNOWN_MB * grown, most))
        _, phases = self._cost(spec)
        launch = self._plan.launch
        held = launch.devices * size * 4.0  # what is only scored is loaded, in fp32 at most
        for phase in phases:
            on_host = memory.in_host(phase, launch)
            if not self.gpus:
                on_host += launch.devices * sum(memory.on_device(phase, launch).values())
            held = max(held, on_host)
        base = JOB_MB + launch.devices * (CUDA_PROCESS_MB if self.gpus else PROCESS_MB)
        asked = (base + MARGIN * held / 1e6) * grown
        return round(min(max(LEAST_MB, math.ceil(asked / 100) * 100), most))

    def runtime(self, spec, attempt: int = 1) -> int:
        """Return a job's time limit in minutes; attempt n asks for n times as much, up to the partition's limit."""
        most = self.site.max_hours * 60
        hours = self._cost(spec)[0] if self._size(spec) else UNKNOWN_HOURS
        devices = self.study.devices
        minutes = 60 * SLACK * hours / (1 if devices == 1 else SHARED * devices)
        minutes += START_MINUTES + self.notice(spec) / 60
        return math.ceil(min(minutes * attempt, most))

    def notice(self, spec) -> int:
        """Return how many seconds before the time limit a job is told, so that its state is saved by then."""
        phases = self._cost(spec)[1] if self._size(spec) else []
        state = max((memory.state_on_disk(phase, self._plan.launch) for phase in phases), default=0.0)
        return NOTICE * max(1, math.ceil(state / DISK / 60))

    def of(self, specs: Mapping) -> dict[str, int | str | Callable]:
        """Return the resources of a rule whose runs are `specs` {run: spec}, as Snakemake takes them."""
        site = self.site
        found: dict[str, int | str | Callable] = {
            "mem_mb": lambda wildcards, attempt: self.mem_mb(specs[wildcards.run], attempt),
            "runtime": lambda wildcards, attempt: self.runtime(specs[wildcards.run], attempt),
            "slurm_extra": lambda wildcards: f"--signal=TERM@{self.notice(specs[wildcards.run])} --open-mode=append",
            "gpu": self.gpus,
            "nodes": 1,  # of GPUs alone SLURM would also take some here and some there
            "cpus_per_task": self.gpus * site.cpus_per_gpu or self.study.threads * self.study.devices,
        }
        if self.gpus and site.gpu_model:
            found["gpu_model"] = site.gpu_model
        if site.account and site.account != NO_ACCOUNT:
            found["slurm_account"] = site.account
        found |= {"slurm_partition": site.partition} if site.partition else {}
        return found | ({"qos": site.qos} if site.qos else {})
