"""Have Snakemake judge by what is in the files, not by their times: `cp -r`, scp and tar change the times of results.

Of 9.27 three things are replaced. No file counts as newer than another one, neither before a job nor after it, when a
clock that is ahead would fail it. Instead, when the jobs are planned, the records of what their steps read and made
(`rtt.records`) are compared with the files: a job whose inputs are others than it read runs again, with all that
follows it; a result that is not what its step made stops the run, before anything is overwritten. Changed code,
parameters and sets of inputs are noticed as ever, and so is a job before this one that runs again.
"""

import os
from pathlib import Path

from snakemake.dag import DAG
from snakemake.exceptions import WorkflowError
from snakemake.io import _IOFile
from snakemake.logging import logger

from rtt import records
from rtt.errors import UserError
from rtt.files import read_json

RECORDS = ("manifests", "point_choices", "code")  # folders of files that hold records
SHOWN = 10  # damaged files that a message names at most


def mend(results: str | Path, main: bool) -> None:
    """Mend Snakemake for one study's folder; only the main process plans jobs, so only it compares."""

    async def is_newer(self, time):
        return False

    async def check_output_mtime(self, job, expanded_output):
        return None

    _IOFile.is_newer = is_newer
    DAG.check_output_mtime = check_output_mtime
    if not main:
        return
    update_needrun, root = DAG.update_needrun, Path(results)

    async def compared(self, create_inventory=False):
        if not vars(self).get("compared_with_records"):
            self.compared_with_records = True
            self.forcefiles.update(stale(root, [job for job in self.jobs if not forced(self, job)]))
        await update_needrun(self, create_inventory)

    DAG.update_needrun = compared


def forced(dag, job) -> bool:
    """Return whether a job runs in any case, so that its files need not be right."""
    return job.rule in dag.forcerules or not dag.forcefiles.isdisjoint(job.output)


def stale(root: Path, jobs: list) -> list[str]:
    """Return the outputs of the jobs that have read other inputs than there are now, and say so.

    Raises WorkflowError where a result differs from what its step made. Derived files (tables, figures, report) are
    simply made again.
    """
    outputs, damaged, why = [], [], []
    for job in jobs:
        try:
            derived, said = _record(root, job)
            made, read = records.changed(root, said.get("made")), records.changed(root, said.get("read"))
        except UserError as error:
            raise WorkflowError(str(error)) from None
        if not derived:  # a dataset is what its spec says, so what became of its files decides no other run
            data = [path for path in read if job.rule.name == "facts"]
            damaged += [f"{path}: is not what step {job.rule} read; delete {_holder(path, job.input)}" for path in data]
            damaged += [
                f"{path}: is not what step {job.rule} made; delete {_holder(path, job.output)}" for path in made
            ]
        if (made and not derived) or job.rule.name == "facts":
            continue
        if made or read or (derived and _other_inputs(root, job, said)):
            what = f"is not what {job.rule} made" if made else f"has changed since {job.rule} read it"
            if made or read:
                why.append(f"{(made or read)[0]} {what}: {job.rule} runs again for {job.output[0]}")
            outputs += job.output
    if damaged:
        damaged[SHOWN:] = [f"... and {len(damaged) - SHOWN} more"] if len(damaged) > SHOWN else []
        advice = (
            "These files were damaged or changed since, and nothing was run. Put the right ones in their place (from a "
            "backup, or by copying again), or delete what each line says and start again: it is made once more."
        )
        raise WorkflowError("\n".join([*damaged, advice]))
    for line in why:
        logger.warning(line)
    return outputs


def _record(root: Path, job) -> tuple[bool, dict]:
    """Return whether a job's outputs are derived from scores alone, and the record of what it read and made."""
    for path in map(Path, job.output):
        if path.parent.parent == root and path.parent.name in RECORDS:
            return path.parent.name == "code", records.read_record(path)
        if path.name == "audit.json" and path.is_file():
            return False, _of_audit(root, job, read_json(path))
    return False, {}


def _other_inputs(root: Path, job, said: dict) -> bool:
    """Return whether a derived file was made from other files, by their names, than it would be now."""
    read = {Path(os.path.normpath(root / name)) for name in said.get("read", ())}
    inputs = {path for path in map(Path, job.input) if path.parent != root / "code"}
    if not read:
        return False
    outside = [path for path in read if not inputs & {path, *path.parents}]
    return bool(outside) or any(not any(one in (path, *path.parents) for path in read) for one in inputs)


def _of_audit(root: Path, job, audit) -> dict:
    """Return the record that an audit holds: it names the files of the dataset's folder, and the facts."""
    audit = audit if isinstance(audit, dict) else {}
    if not isinstance(audit.get("facts_sha256"), str) or not isinstance(audit.get("sha256"), dict):
        return {}
    facts = next((path for path in job.output if Path(path).name == "facts.jsonl"), None)
    inside = Path(*[".."] * len(root.parts))
    read = {f"{inside}/{folder}/{name}": value for folder in job.input for name, value in audit["sha256"].items()}
    return {"read": read, "made": {Path(facts).relative_to(root).as_posix(): audit["facts_sha256"]} if facts else {}}


def _holder(path: Path, files) -> str:
    """Return which output or input of a job holds a file: itself, or a folder."""
    path = Path(os.path.normpath(path))
    outer = [one for one in map(Path, files) if one == path or one in path.parents]
    return str(outer[0] if outer else path)
