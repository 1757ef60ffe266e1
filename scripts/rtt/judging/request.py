"""What a verdict was asked for, checked before the first minute of work, and kept so that the same command goes on."""

import os
import platform
import shlex
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from os.path import normpath
from pathlib import Path
from typing import Any

import psutil

from rtt import places
from rtt.errors import UserError
from rtt.files import clock, read_json, write_json, write_text
from rtt.judging import budget, models, questions, settings
from rtt.judging.models import Given
from rtt.judging.questions import ENOUGH, Asked
from rtt.judging.study import BUDGET, Parts, name_of, study_of, text_of
from rtt.planner.before import Before
from rtt.study import plugins
from rtt.study.digests import folder_digest
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.names import BY_DEFAULT, probes_of

KEPT, STUDY, DATA = "asked.json", "study.yaml", "data"  # in the verdict's folder
VERSION = 1
PATHS = ("unlearned", "original", "data", "control_data", "retain_data")  # of a request
NOT_TRAINED = "it trains the model; name it with --attacks"
NOT_NAMED = "--attacks does not name it"
NO_RETAIN_DATA = "it uses facts that must stay; give --retain-data"


@dataclass(frozen=True)
class Request:
    """What the command line asked for. A number of cores, and where the verdict goes, decide no number."""

    unlearned: str
    original: str
    data: str
    control_data: str | None = None
    retain_data: str | None = None
    attacks: tuple[str, ...] | None = None
    headline: tuple[str, ...] | None = None
    budget: str | None = None

    def plain(self) -> dict[str, Any]:
        """Return it as JSON holds it, with the digest of each folder of questions."""
        found = {key: list(one) if isinstance(one, tuple) else one for key, one in asdict(self).items()}
        folders = {key: found[key] for key in ("data", "control_data", "retain_data") if found[key]}
        return found | {"digests": {key: folder_digest(one, "*.jsonl") for key, one in folders.items()}}


@dataclass(frozen=True)
class Prepared:
    """A verdict that can run: its folder, its study, and what was decided before anything ran (`asked.json`)."""

    out: Path
    work: Path
    kept: dict[str, Any]

    @property
    def study_file(self) -> Path:
        """The study file."""
        return self.out / STUDY

    @property
    def results(self) -> Path:
        """The study's results."""
        return self.work / "results" / self.kept["study"]


def prepare(request: Request, out: Path | None, cores: int) -> Prepared:
    """Check what was asked for, and write the study; or take what the same command wrote before.

    A preparation that was killed left `asked.json` without decisions; it is made anew. Raises UserError where something
    cannot be used, and where the folder holds the verdict on something else. Then nothing is left behind.
    """
    work = places.work_folder()
    before = models.original(request.original)
    after = models.unlearned(request.unlearned, before)
    out = work / "verdict" / after.name if out is None else out
    folders = {"--data": request.data, "--control-data": request.control_data, "--retain-data": request.retain_data}
    for option, folder in folders.items():
        if folder is not None:
            questions.check_folder(option, folder)
    asked = request.plain()
    if (out / KEPT).is_file():
        if "study" in (kept := _kept(out)):
            _check_same(out, kept["asked"], asked)
            return Prepared(out, work, kept)
        _check_ended(out, kept.get("by"))
        _discard(out)
    if out.exists() and (not out.is_dir() or any(path not in _unfinished(out) for path in out.iterdir())):
        raise UserError(f"--out {_shown(out)}: it holds other files; name a new folder with --out, or empty this one")
    before = models.counted(before, after)
    parents = [path for path in out.parents if not path.exists()]
    begun = {"version": VERSION, "asked": asked, "by": _process(os.getpid())}
    try:
        write_json(out / KEPT, begun)
        write_json(out / KEPT, begun | _written(request, before, after, out, work, cores))
    except BaseException:
        _discard(out)
        with suppress(OSError):  # another verdict may have written into them by now
            for path in parents:
                path.rmdir()
        raise
    return Prepared(out, work, read_json(out / KEPT))


def _process(pid: int) -> dict[str, Any]:
    """Return what tells a process of this machine from all others. Raises psutil.NoSuchProcess."""
    return {"host": platform.node(), "pid": pid, "started": psutil.Process(pid).create_time()}


def _check_ended(out: Path, by: dict[str, Any] | None) -> None:
    """Raise UserError where another command may still be at work on a preparation."""
    if by is None or by == _process(os.getpid()):
        return
    if by["host"] == platform.node():
        try:
            if _process(by["pid"]) != by:
                return
        except psutil.NoSuchProcess:
            return
    raise UserError(
        f"--out {_shown(out)}: another verdict is being prepared there, by process {by['pid']} on {by['host']}; wait "
        "for it, name a new folder with --out, or delete this one if that process has ended"
    )


def _discard(out: Path) -> None:
    """Remove what an unfinished preparation has written, and its folder where that is empty then."""
    with suppress(OSError):
        shutil.rmtree(out / DATA, ignore_errors=True)
        for path in (out / STUDY, *_unfinished(out), out / KEPT):
            path.unlink(missing_ok=True)
        out.rmdir()


def _unfinished(out: Path) -> list[Path]:
    """Return the temporary files of writes that were killed."""
    return [path for name in (KEPT, STUDY) for path in out.glob(f".{Path(name).stem}.*")]


def _kept(out: Path) -> dict[str, Any]:
    """Return what was kept; without a `study` where the preparation was killed. Raises UserError for anything else."""
    kept = read_json(out / KEPT)
    if not isinstance(kept, dict) or kept.get("version") != VERSION or not isinstance(kept.get("asked"), dict):
        raise UserError(f"{out / KEPT}: not what this version of the program writes; name a new folder with --out")
    return kept


def _check_same(out: Path, before: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise UserError where a folder holds the verdict on something else."""
    for key, value in asked.items():
        old = before.get(key)
        if old != value and (key not in PATHS or old is None or value is None or normpath(old) != normpath(value)):
            option = f"--{key.replace('_', '-')}"
            changed = f"{option} was {_given(old)}, and is {_given(value)}"
            if key == "digests":
                changed = "the questions have changed"
            raise UserError(
                f"{_shown(out)} holds the verdict on something else: {changed}; name a new folder with --out, or "
                "delete this one"
            )


def _given(value: str | list[str] | None) -> str:
    """Return what an option was given as it is typed."""
    return "not given" if value is None else shlex.join([value] if isinstance(value, str) else value)


def _written(request: Request, before: Given, after: Given, out: Path, work: Path, cores: int) -> dict[str, Any]:
    """Write the study file, and cut questions where that is needed; return what was decided."""
    data = questions.with_splits(questions.read("--data", request.data, "facts"))
    control = request.control_data and questions.read("--control-data", request.control_data, "never_seen")
    if control:
        control = questions.shaped(control, list(data.sizes.values()))
    kept = request.retain_data and questions.read("--retain-data", request.retain_data, "kept")
    if control:
        questions.check_apart(data, control, "a control holds facts that the original never saw")
    if kept:
        questions.check_apart(data, kept, "what had to stay cannot be what is unlearned")
    if control and kept:
        questions.check_apart(kept, control, "a control holds facts that the original never saw")
    everything = [one for one in (data, control, kept) if one]
    probes = _probes(everything)
    judged_by = _headline(request.headline, before.parameters, probes)
    refused = models.refused(before)
    attacks, not_tried = _attacks(request, before, refused, judged_by)
    places_of = {"facts": data, "never_seen": control}
    folders = {name: _folder(one, out / DATA / name, work) if one else None for name, one in places_of.items()}
    parts = Parts(
        _seen(before, work), _seen(after, work), data, folders["facts"], control or None, folders["never_seen"],
        _relative(Path(request.retain_data), work) if request.retain_data else None, probes, judged_by, cores,
    )  # fmt: skip
    name = name_of(Path(_relative(out, work).lstrip("/")))
    path = out / STUDY

    def loaded(some: dict[str, Any]):
        write_text(path, text_of(study_of(name, parts, some), parts))
        return load_study(path)

    study = loaded(attacks)
    Before(Runs(study, work)).check()
    estimate, on = None, None
    if request.budget is not None:
        wanted = budget.seconds(request.budget)
        on, _ = budget.device()
        attacks, shortened, estimate = budget.fitting(
            attacks, wanted, lambda some: budget.estimate(loaded(some), on, cores, work)
        )
        not_tried += [{"attack": attack, "why": why} for attack, why in shortened]
        study = loaded(attacks)
    lacking = budget.lack_of_memory(study, work)
    return {
        "study": name,
        "names": {"original": before.name, "unlearned": after.name},
        "parameters": before.parameters,
        "questions": {
            "data": _described(data), "control": _described(control) if control else None,
            "retain": _described(kept) if kept else None,
        },
        "headline": list(judged_by),
        "attacks": attacks,
        "not_tried": not_tried,
        "estimate_seconds": None if estimate is None else round(estimate),
        "warnings": [*_warnings(data, control, kept), *([lacking] if lacking else [])],
    }  # fmt: skip


def _probes(everything: Sequence[Asked]) -> list[str]:
    """Return the probes that every question can be asked by."""
    lacking = set()
    if not all(fact.fresh_choices for one in everything for fact in one.facts):
        lacking.add("likelihood_fresh")
    if not all(one.sentences for one in everything):
        lacking.add("cloze")
    return [name for name in BY_DEFAULT if name not in lacking]


def _headline(wanted: Sequence[str] | None, parameters: int, probes: Sequence[str]) -> list[str]:
    there = probes_of(probes)
    for name in wanted or ():
        if name not in there:
            raise UserError(
                f"--headline {name}: these questions cannot be asked so; expected one or two of {', '.join(there)}"
            )
    if wanted and (len(wanted) > 2 or len(set(wanted)) < len(wanted)):
        raise UserError(f"--headline {' '.join(wanted)}: expected one or two different probes")
    return list(wanted) if wanted else settings.headline(parameters, probes)


def _attacks(request: Request, before: Given, refused: dict[str, str], judged_by: Sequence[str]) -> tuple[dict, list]:
    """Return {attack: its part of the study}, and what is not tried and why."""
    known = {name: one for name, one in plugins.attacks().items() if not one.control}
    if request.attacks is not None:
        wanted = settings.named(request.attacks, refused)
        lacking = [name for name in wanted if _needs_retain(name) and request.retain_data is None]
        if lacking:
            raise UserError(f"--attacks {lacking[0]}: {NO_RETAIN_DATA}")
    else:
        wanted = settings.by_default(refused)
    shared = settings.retraining(before.parameters, judged_by)
    attacks, not_tried = {}, []
    for name in known:
        if name in refused:
            not_tried.append({"attack": name, "why": f"it does not work on this model: {refused[name]}"})
        elif name in wanted and _needs_retain(name) and request.retain_data is None:
            not_tried.append({"attack": name, "why": NO_RETAIN_DATA})
        elif name in wanted:
            try:
                attacks[name] = settings.settings_of(name, shared)
            except UserError as error:
                if request.attacks is not None:
                    raise
                not_tried.append({"attack": name, "why": str(error).partition(": ")[2]})
        elif request.attacks is not None:
            not_tried.append({"attack": name, "why": NOT_NAMED})
        else:
            not_tried.append({"attack": name, "why": NOT_TRAINED})
    if not attacks:
        raise UserError("no attack is left: every one refuses this type of model")
    if not any(settings.judged(name, judged_by[0]) for name in attacks):
        raise UserError(
            f"--attacks {' '.join(attacks)}: none of these can be judged by {judged_by[0]}, the first headline probe; "
            "name another attack beside them, such as RTT, or another probe with --headline"
        )
    return attacks, not_tried


def _needs_retain(name: str) -> bool:
    return plugins.attacks()[name].uses_retain


def _folder(asked: Asked, own: Path, work: Path) -> str:
    """Return the folder from which the study reads questions; those that were cut are written first."""
    if asked.cut is None:
        return _relative(Path(asked.folder), work)
    questions.write(asked, own)
    return _relative(own, work)


def _seen(given: Given, work: Path) -> Given:
    """Return a model whose folder is named as the study names it."""
    if given.folder is None:
        return given
    return Given(given.name, _relative(Path(given.folder), work), parameters=given.parameters)


def _relative(path: Path, work: Path) -> str:
    """Return a path as seen from the folder in which Snakemake works, or an absolute one."""
    full, root = Path(os.path.abspath(path)), Path(os.path.abspath(work))
    return full.relative_to(root).as_posix() if full.is_relative_to(root) else full.as_posix()


def _shown(path: Path) -> str:
    return _relative(path, Path.cwd())


def _described(asked: Asked) -> dict[str, Any]:
    return {
        "folder": asked.folder,
        "questions": sum(asked.sizes.values()),
        "splits": asked.sizes,
        "cut": asked.cut is not None,
    }


def _warnings(data: Asked, control: Asked | None, kept: Asked | None) -> list[str]:
    """Return what is known before anything runs of what the answer cannot be, and of what it leaves open."""
    found, n = [], sum(data.sizes.values())
    if n < ENOUGH:
        found.append(
            f"{n} questions are fewer than {ENOUGH}: the answer can be that facts are hidden, but not that nothing was "
            "found"
        )
    if not control:
        found.append(
            "there is no --control-data: without a model that never knew, the answer can't be that nothing was found"
        )
    if not kept:
        found.append(
            "there is no --retain-data: whether unlearning broke the model is told by the perplexity of invented "
            f"sentences alone, and it is attacked whatever it has lost (a retain budget of {BUDGET:.0%})"
        )
    return found


def lines(found: Prepared) -> list[str]:
    """Return what is about to be done, for a terminal."""
    kept = found.kept
    asked, data, control = kept["asked"], kept["questions"]["data"], kept["questions"]["control"]
    size = f"{kept['parameters'] / 1e6:,.1f} million weights"
    told = [
        f"unlearned: {asked['unlearned']}, from {asked['original']} ({size})",
        f"questions: {_counted(data)}",
        f"control: {_counted(control)}" if control else "control: none",
        f"attacks: {', '.join(kept['attacks'])}; judged by {' and '.join(kept['headline'])}",
    ]
    told += [f"not tried: {one['attack']}: {one['why']}" for one in kept["not_tried"]]
    if kept["estimate_seconds"] is not None:
        told.append(f"estimate: {clock(kept['estimate_seconds'])} in all, of {asked['budget']}")
    told += [f"warning: {text}" for text in kept["warnings"]]
    told.append(f"study: {_shown(found.study_file)}")
    return told


def _counted(part: dict[str, Any]) -> str:
    sizes = ", ".join(str(n) for n in part["splits"].values())
    how = ", cut by this command" if part["cut"] else ""
    return f"{part['questions']} of {part['folder']}, in {len(part['splits'])} splits of {sizes}{how}"
