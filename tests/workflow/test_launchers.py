"""Each launcher through the real Snakemake: two real processes under ZeRO-2 give the scores of one process."""

import json
from pathlib import Path

import pytest
from clones import SMOKE, Clone, clone_environment

CONFIG = ["devices=2", "deepspeed=zero2", "packing=true"]


def scores(results: Path, pattern: str) -> dict[tuple, list[float]]:
    """Return {(file, look, question, probe): four log-probabilities} of evaluations."""
    found = {}
    for path in sorted(results.glob(f"evals/{pattern}")):
        for number, look in enumerate(json.loads(path.read_text())["looks"]):
            for question in look["questions"]:
                for probe, asked in question["probes"].items():
                    found[path.relative_to(results), number, question["id"], probe] = asked["scores"]
    return found


def held(one: Path, two: Path, pattern: str) -> None:
    """Compare two results folders within the bounds of docs/devices.md: scores within 1e-3, predictions equal."""
    left, right = scores(one, pattern), scores(two, pattern)
    assert left and left.keys() == right.keys()
    for key, values in left.items():
        assert right[key] == pytest.approx(values, abs=1e-3), key
        best, second = sorted(values, reverse=True)[:2]
        assert best - second <= 1e-3 or values.index(best) == right[key].index(max(right[key])), key


def worked_together(results: Path, stem: str) -> bool:
    """Return whether each of these manifests says ZeRO-2 on two processes."""
    made = [json.loads(path.read_text()) for path in results.glob(f"manifests/{stem}")]
    return bool(made) and all((one["engine"], one["world_size"]) == ("zero2", 2) for one in made)


@pytest.mark.full
def test_two_jobs_of_deepspeed_at_once_start_on_ports_of_their_own(fresh: Clone, finished: Clone):
    """Pretraining, then teaching and unlearning side by side."""
    wanted = [*finished.results().glob("evals/teach-*"), *finished.results().glob("evals/unlearn-pretrained-*")]
    targets = [str(path.relative_to(finished.folder)) for path in wanted]
    # Targets stand after an option of one value: the others would take them for theirs.
    done = fresh.smoke("--config", "launcher=deepspeed", *CONFIG, "--scheduler", "greedy", *targets)
    assert done.returncode == 0, done.stdout
    assert worked_together(fresh.results(), "[ptu]*.json")
    for pattern in ("pretrain-*.json", "teach-*.json", "unlearn-pretrained-*.json"):
        held(finished.results(), fresh.results(), pattern)


@pytest.mark.full
@pytest.mark.parametrize("launcher", ["torchrun", "deepspeed"])
def test_a_whole_study(launcher, fresh: Clone, finished: Clone):
    done = fresh.smoke("--config", f"launcher={launcher}", *CONFIG)
    assert done.returncode == 0, done.stdout
    assert worked_together(fresh.results(), "*-s0-*.json")
    held(finished.results(), fresh.results(), "**/*.json")


@pytest.mark.parametrize(
    ("device", "visible", "slots", "on"),
    [
        ("cuda", "2,3,5", "--include localhost:2,3", "cuda"),
        ("cuda", None, "--num_gpus 2", "cuda"),
        ("cpu", "2,3", "--num_gpus 2", "cpu"),
        ("auto", "2,3", "--num_gpus 2", "cpu"),  # a miniature
    ],
)
def test_deepspeed_takes_the_job_s_gpus(fresh: Clone, device, visible, slots, on):
    """With --num_gpus alone it would take the machine's first GPUs. A stand-in prints what it was called with."""
    (fresh.folder / "bin").mkdir()
    launcher = fresh.folder / "bin/deepspeed"
    launcher.write_text('#!/bin/sh\necho "called with $@, on $RTT_DEVICE"\nexit 1\n')
    launcher.chmod(0o755)
    variables = {"PATH": f"{launcher.parent}:{clone_environment(fresh.folder)['PATH']}"}
    variables |= {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    config = ["--config", "launcher=deepspeed", *CONFIG, f"device={device}", "oracle=false"]  # one base, one log
    done = fresh.snakemake("-c2", "--configfile", SMOKE, *config, "--until", "pretrain", **variables)
    assert done.returncode == 1
    (log,) = fresh.results().glob("logs/pretrain/*.log")
    said = log.read_text()
    assert f"called with --no_local_rank {slots} --master_port " in said and f", on {on}\n" in said


def test_several_nodes_are_refused_where_no_slurm_starts_them(fresh: Clone):
    done = fresh.snakemake("-c1", "--configfile", SMOKE, "--config", "launcher=torchrun", "nodes=2")
    assert done.returncode == 1 and not fresh.results().exists()
    assert "nodes: 2, but only SLURM starts a job on several nodes: submit it with --workflow-profile" in done.stdout
