"""What jobs ask a cluster for, and the file in which a user names account, partition and GPU model."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rtt.errors import UserError
from rtt.planner.resources import LEAST_MB, NOTICE, UNKNOWN_MB, Resources, Site, account_hint, read_site
from rtt.study.expand import Runs
from rtt.study.load import load_study

ROOT = Path(__file__).parents[2]
RUN = SimpleNamespace(run="x")


def of(study: str, site: Site | None = None, **overrides) -> tuple[Resources, Runs]:
    loaded = load_study(str(ROOT / "config" / f"{study}.yaml"), overrides)
    return Resources(loaded, site or Site(), ROOT), Runs(loaded, ROOT)


def first(specs: dict):
    return next(iter(specs.values()))


@pytest.fixture(scope="module")
def paper():
    return of("paper")


def test_a_miniature_asks_for_a_core_and_no_gpu():
    needs, runs = of("smoke")
    asked = needs.of(runs.unlearn)
    assert (asked["gpu"], asked["cpus_per_task"]) == (0, 1)
    assert "gpu_model" not in asked
    for spec in (first(runs.unlearn), *runs.attacks.values(), *runs.sources.values()):
        assert LEAST_MB <= needs.mem_mb(spec) < 4000
        assert 15 < needs.runtime(spec) < 60
        assert needs.notice(spec) == NOTICE


@pytest.mark.parametrize(
    ("study", "device", "gpus"), [("smoke", "cuda", 1), ("paper", "auto", 1), ("paper", "cuda", 1), ("paper", "cpu", 0)]
)
def test_the_device_decides_whether_a_gpu_is_asked_for(study, device, gpus):
    needs, runs = of(study, Site(gpu_model="h100"), device=device)
    asked = needs.of(runs.unlearn)
    assert asked["gpu"] == gpus
    assert asked.get("gpu_model") == ("h100" if gpus else None)


def test_two_devices_are_one_job_without_tasks():
    needs, runs = of("paper", Site(gpu_model="h100", cpus_per_gpu=6), launcher="torchrun", devices=2)
    asked = needs.of(runs.unlearn)
    assert (asked["gpu"], asked["cpus_per_task"], asked["nodes"]) == (2, 12, 1)
    assert not [key for key in asked if "tasks" in key and key != "cpus_per_task"]
    one, _ = of("paper", Site(gpu_model="h100"))
    spec = first(runs.attacks)
    assert one.runtime(spec) / 2 < needs.runtime(spec) < one.runtime(spec)
    assert needs.mem_mb(spec) > 1.5 * one.mem_mb(spec)  # each process loads a whole copy


def test_two_nodes_are_one_job_with_a_task_on_each():
    wanted = {"launcher": "torchrun", "deepspeed": "zero3", "devices": 4}
    needs, runs = of("paper", Site(gpu_model="h100", cpus_per_gpu=6), nodes=2, **wanted)
    asked = needs.of(runs.unlearn)
    assert (asked["nodes"], asked["mpi"], asked["tasks"], asked["cpus_per_task"]) == (2, "srun", 2, 24)
    assert asked["gres"] == "gpu:h100:4" and not {"gpu", "gpu_model"} & set(asked)  # of each node
    assert asked["tasks_per_gpu"] == 0  # otherwise `tasks` would be taken for tasks per GPU
    alone, spec = of("paper", Site(gpu_model="h100", cpus_per_gpu=6), **wanted)[0], first(runs.attacks)
    assert needs.mem_mb(spec) == alone.mem_mb(spec)  # of each node
    assert alone.runtime(spec) / 2 < needs.runtime(spec) < alone.runtime(spec)
    on_cpus, _ = of("smoke", launcher="torchrun", nodes=3, devices=2)
    assert "gres" not in on_cpus.of({}) and on_cpus.of({})["cpus_per_task"] == 2


def test_memory_and_time_grow_with_the_model_and_the_attempt(paper):
    needs, runs = paper
    small, few = of("smollm-small", device="cuda")
    spec = first(runs.unlearn)
    assert needs.mem_mb(spec) > 1e-6 * 4 * 8_030_261_248 > 2 * small.mem_mb(first(few.unlearn))
    assert needs.mem_mb(spec, 3) == pytest.approx(2 * needs.mem_mb(spec), rel=0.01)
    assert needs.mem_mb(spec, 3) == needs.mem_mb(spec, 20)  # a job of many time limits needs no more memory
    assert needs.runtime(spec, 2) == pytest.approx(2 * needs.runtime(spec), abs=1)
    assert needs.notice(spec) > 5 * NOTICE > small.notice(first(few.unlearn))  # 64 GB take longer to save


def test_time_ends_at_the_partition_s_limit(paper):
    _, runs = paper
    needs, _ = of("paper", Site(max_hours=2))
    assert needs.runtime(first(runs.attacks), 4) == 120


def test_memory_ends_at_that_of_a_node(paper):
    _, runs = paper
    needs, _ = of("paper", Site(max_memory_gb=60))
    spec = first(runs.attacks)
    assert needs.mem_mb(spec) < 60_000 == needs.mem_mb(spec, 3)


def test_a_faster_gpu_is_asked_for_a_shorter_time(paper):
    spec = first(paper[1].attacks)
    times = [of("paper", Site(gpu_model=name))[0].runtime(spec) for name in ("h100", "a100", None)]
    assert times[0] < times[1] == times[2]


def test_a_model_of_unknown_size_asks_for_much():
    study = load_study(str(ROOT / "config/paper.yaml"), {})
    unknown = study.model_copy(update={"model": study.model.model_copy(update={"parameters": None})})
    needs, runs = Resources(unknown, Site(), ROOT), Runs(unknown, ROOT)
    spec = first(runs.unlearn)
    assert (needs.mem_mb(spec), needs.mem_mb(spec, 2)) == (UNKNOWN_MB, 1.5 * UNKNOWN_MB)
    assert (needs.runtime(spec), needs.notice(spec)) == (24 * 60, NOTICE)


def test_snakemake_gets_functions_of_the_run_and_the_attempt(paper):
    needs, runs = paper
    spec = first(runs.unlearn)
    asked = needs.of({"x": spec})
    assert asked["mem_mb"](RUN, attempt=2) == needs.mem_mb(spec, 2)
    assert asked["runtime"](RUN, attempt=1) == needs.runtime(spec)
    assert asked["slurm_extra"](RUN) == f"--signal=TERM@{needs.notice(spec)} --open-mode=append"


def test_account_partition_and_qos_are_the_site_s():
    _, runs = of("smoke")
    asked = of("smoke", Site(account="physics", partition="gpu", qos="long"))[0].of(runs.unlearn)
    assert (asked["slurm_account"], asked["slurm_partition"], asked["qos"]) == ("physics", "gpu", "long")
    assert not {"slurm_account", "slurm_partition", "qos"} & set(of("smoke", Site(account="none"))[0].of(runs.unlearn))


# --- the file


def test_the_example_sets_nothing():
    assert read_site(ROOT / "profiles/slurm/site.example.yaml") == Site() == read_site(Path("nowhere.yaml"))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("acount: x\n", "acount: unknown key; allowed: account, partition"),
        ("gpu_model: 'h100:2'\n", "gpu_model"),
        ("max_hours: 0\n", "max_hours"),
        ("max_hours: 24:00:00\n", ":1: YAML reads 24:00:00 as a number to the base 60"),
        ("a: [", ""),
    ],
)
def test_a_mistake_in_it_is_named(tmp_path, text, named):
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"(?s){path}.*{named}"):
        read_site(path)


def test_an_account_that_is_not_set_gives_the_command_to_type(tmp_path):
    path = tmp_path / "site.yaml"
    assert f"cp {tmp_path}/site.example.yaml {path}" in account_hint(Site(), path)
    path.write_text("")
    assert f"set `account` in {path}" in account_hint(Site(), path)
    assert account_hint(Site(account="physics"), path) is account_hint(Site(account="none"), path) is None


def test_neither_torch_nor_pandas_is_imported():
    code = "import sys, rtt.planner.resources; sys.exit(bool({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts").returncode == 0
