"""Check whether this step still owns the run that it writes."""

from pathlib import Path

from rtt.errors import UserError

own: Path | None = None  # this step's lock file in results/.locks, set by `rtt.runtime.locks.step`


def still_ours() -> None:
    """Raise UserError if another job has taken over this step's run, so that its files are not overwritten.

    That happens when SLURM declares this step's node dead and starts the job again elsewhere.
    """
    if own is not None and not own.exists():
        raise UserError(
            f"{own} is gone: another job has taken over this run, so this one stops and writes nothing more"
        )
