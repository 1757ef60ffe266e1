"""Whether this step still owns the run that it writes."""

from pathlib import Path

from rtt.errors import UserError

own: Path | None = None  # this step's file below results/.locks, set by `rtt.runtime.locks.step`


def still_ours() -> None:
    """Raise UserError where another job has taken this step's run over: what it writes must not be overwritten.

    That happens where SLURM took this step's node for dead, and started the job again elsewhere.
    """
    if own is not None and not own.exists():
        raise UserError(
            f"{own} is gone: another job has taken this run over, so this one stops and writes nothing more"
        )
