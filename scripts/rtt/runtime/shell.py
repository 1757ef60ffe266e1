"""The shell code around each step of a rule: which code the step runs, what starts it, what signals and kills mean."""

import shlex

# Bash's exit code of a step that somebody killed with SIGKILL, which no step can explain by itself.
KILLED = """
code=$?
if [ $code = 137 ]; then
    now=$(grep -s '^oom_kill ' /proc/vmstat || true)
    if [ "$now" != "$OOM_BEFORE" ]; then why="the kernel's out-of-memory killer has struck since this step began"
    else why="most often memory has run out, the machine's or the job's (dmesg, sacct -o State,MaxRSS)"; fi
    echo "error: this step was killed (SIGKILL): $why. Run fewer jobs at once (--cores), give the job more memory, \
or make batches smaller (micro_batch); the same command continues from the newest checkpoint" >&2
fi
"""


def prefix(scripts: str) -> str:
    """Return the code. `scripts` is the folder of the code that steps run, whatever else is installed.

    A cluster sends SIGTERM to all processes of a job. Shell and tee ignore it, so that they outlive a step that saves.
    """
    return (
        f"set -euo pipefail; trap '' TERM; OOM_BEFORE=$(grep -s '^oom_kill ' /proc/vmstat || true); "
        f"trap {shlex.quote(KILLED)} EXIT; export PYTHONPATH={shlex.quote(scripts)}; "
    )


def torchrun(devices: int, nodes: int = 1, cpus: int = 1) -> str:
    """Return the command that starts a step's processes: one torchrun, or SLURM's srun, which starts one on each node.

    The processes of several nodes meet at the torchrun of the first one, where the shell itself runs, at a port that
    follows from the job's id. `cpus` are those of each node. An hour after the first node has ended srun kills the
    others.
    """
    common = f"--shutdown-timeout 3600 --nproc-per-node {devices} -m rtt"
    if nodes == 1:
        return f"torchrun --standalone {common}"
    job = "${SLURM_JOB_ID:-0}"  # on the login node, where no step is started so, there is none
    srun = f"srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpus-per-task={cpus} --input=none --wait=3600"
    # Not $HOSTNAME, which SLURM sets to its own name of the node.
    meet = f"--rdzv-backend c10d --rdzv-id {job} --rdzv-endpoint $(uname -n):$((10000 + {job} % 20000))"
    return f"{srun} torchrun --nnodes {nodes} {meet} {common}"
