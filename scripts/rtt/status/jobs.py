"""The jobs of a study, as Snakemake counts them when no results exist: what each makes, logs and waits for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rtt.bundle.contents import attacked, derived_files, stems
from rtt.study.expand import Runs
from rtt.study.names import FIGURES, TABLES
from rtt.study.specs import DataSpec, RawSpec, Retain, TextsSpec

STAGES = (
    "fetch_dataset", "fetch_texts", "generate", "facts", "import_model", "pretrain", "original", "teach", "unlearn",
    "choose", "attack", "tables", "figure", "report",
)  # fmt: skip
PREPARED = ("fetch_dataset", "fetch_texts", "generate", "facts", "import_model")  # needless once what follows is there
FINAL = ("tables", "figure", "report")  # made of all scores
EXTERNAL = "../../data/external"  # as seen from a results folder


@dataclass(frozen=True)
class Job:
    """One job. `outputs` and `log` are names below the results folder, `needs` the names of other jobs.

    `runs` are those that write a manifest, the job's own name among them, and `plugins` the methods or attacks that
    they are of.
    """

    stage: str
    name: str
    outputs: tuple[str, ...]
    log: str
    needs: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


def of_runs(runs: Runs) -> dict[str, Job]:
    """Return the jobs of an expanded study by their names, each after those that it needs."""
    jobs: dict[str, Job] = {}

    def add(stage: str, name: str, outputs: list[str], needs: Iterable[str] = (), folder: str = "", **more) -> None:
        log = more.pop("log", f"logs/{folder or stage}/{name}.log")
        jobs[name] = Job(stage, name, tuple(outputs), log, tuple(dict.fromkeys(filter(None, needs))), **more)

    def trained(stage: str, name: str, needs: Iterable[str], plugins: tuple[str, ...] = (), **more) -> None:
        outputs = [f"evals/{name}.json", f"manifests/{name}.json"]
        add(stage, name, outputs, needs, runs=(name,), plugins=plugins, **more)

    for raw in runs.raw.values():
        if raw.files is None:
            add("generate", raw.run_id, [f"data/{raw.run_id}"])
        elif name := _fetched(raw):
            add("fetch_dataset", name, [f"{EXTERNAL}/{name}"], folder="fetch")
    for texts in runs.texts.values():
        add("fetch_texts", _facts(texts), [f"{EXTERNAL}/{_facts(texts)}/texts.jsonl"], folder="fetch")
    for name, spec in runs.data.items():
        made = spec.raw.run_id if spec.raw.files is None else _fetched(spec.raw)
        add("facts", name, [f"data/{name}/facts.jsonl", f"data/{name}/audit.json"], [made])
    for name in runs.imports:
        add("import_model", name, [f"manifests/{name}.json"], folder="import", runs=(name,))
    for name, spec in runs.sources.items():
        also = [spec.also_taught.run_id] if getattr(spec, "also_taught", None) else []
        model = [spec.base.run_id if spec.kind == "teach" else spec.weights.run_id] if spec.kind != "pretrain" else []
        trained(spec.kind, name, [*model, spec.facts.run_id, *also, *_retained(spec.retain)])
    for name, spec in runs.unlearn.items():
        source, external = spec.source, getattr(spec.settings, "fetched", None)
        needs = [source.weights.run_id, source.run_id, source.facts.run_id, *_retained(source.retain)]
        needs += [*map(_facts, spec.texts or ()), *([external.run_id] if external else [])]
        trained("unlearn", name, needs, (spec.method,))
    for name, spec in runs.choices.items():
        needs = [spec.source.run_id, *(one.run_id for one in spec.trajectories)]
        add("choose", name, [f"point_choices/{name}.json"], needs)
    for group in runs.attack_jobs():
        first, names = group[0], tuple(spec.run_id for spec in group)
        outputs = [f"evals/{stem}.json" for spec in group for stem in spec.eval_ids()]
        outputs += [f"manifests/{name}.json" for name in names]
        learned = [one.learn for spec in group for one in (spec.shots, spec.retain) if one]
        needs = [first.source.weights.run_id, first.facts.run_id, *map(_facts, learned)]
        needs += [one.run_id for one in first.point_choices]
        more = f"-and-{len(group) - 1}-more" * (len(group) > 1)
        log = f"logs/attack/{first.run_id}{more}.log"
        plugins = tuple(spec.attack for spec in group)
        add("attack", first.run_id, outputs, needs, log=log, runs=names, plugins=plugins)
    return jobs | _final(jobs, attacked(runs.plan()), runs.data)


def of_plan(plan: dict[str, Any]) -> dict[str, Job]:
    """Return the jobs of runs.json alone, for results of which the study can no longer be expanded.

    What needs what, and which attacks share a process, is then not known.
    """
    kinds = ("pretrain", "original", "teach", "unlearn", "attack")
    jobs = {}
    for name in plan["data"]:
        jobs[name] = Job("facts", name, (f"data/{name}/audit.json",), f"logs/facts/{name}.log")
    evals: dict[str, list[str]] = {}
    for stem in stems(plan, "evals"):
        evals.setdefault(stem.partition("/")[0], []).append(f"evals/{stem}.json")
    for name in plan["manifests"]:
        kind = name.partition("-")[0]
        stage, folder = (kind, kind) if kind in kinds else ("import_model", "import")
        outputs = (*evals.get(name, ()), f"manifests/{name}.json")
        jobs[name] = Job(stage, name, outputs, f"logs/{folder}/{name}.log", runs=(name,))
    for name in stems(plan, "point_choices"):
        jobs[name] = Job("choose", name, (f"point_choices/{name}.json",), f"logs/choose/{name}.log")
    return jobs | _final(jobs, attacked(plan), plan["data"])


def _final(jobs: dict[str, Job], shown: bool, data: Iterable[str]) -> dict[str, Job]:
    """Return the jobs that draw what the others have scored."""
    scored = tuple(name for name, job in jobs.items() if job.stage not in PREPARED)
    tables = tuple(f"tables/{name}.csv" for name in TABLES)
    found = {"tables": Job("tables", "tables", tables, "logs/tables.log", scored)}
    if shown:
        for name in FIGURES:
            outputs = tuple(one for one, step in derived_files(True) if one.startswith(f"figures/{name}."))
            found[f"figure {name}"] = Job("figure", f"figure {name}", outputs, f"logs/figure/{name}.log", ("tables",))
        manifests = tuple(name for name, job in jobs.items() if job.stage == "import_model")
        needs = ("tables", *data, *manifests)
        found["report"] = Job("report", "report", ("report.html",), "logs/report.log", needs)
    return found


def _fetched(raw: RawSpec) -> str:
    """Return the name of a fetched dataset's folder; "" for the user's own."""
    return f"{raw.files.group}-{raw.files.digest[:10]}" if raw.files and raw.files.group else ""


def _facts(spec: DataSpec | TextsSpec) -> str:
    """Return the name of the job that makes facts or texts."""
    return f"{spec.group}-{spec.count}-{spec.digest[:10]}" if isinstance(spec, TextsSpec) else spec.run_id


def _retained(retain: Retain) -> list[str]:
    return [_facts(retain.learn), _facts(retain.held_out)]
