"""The shell code before each step of a rule: which code the step runs, what a signal does, what a kill means."""

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
