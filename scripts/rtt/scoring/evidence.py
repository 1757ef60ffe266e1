"""What an evaluation says of itself, compared: a flipped bit or an edited number is found and named.

A file holds its evidence: accuracies beside the scores, a spec beside its hash, an id in its name, labels and looks
that follow from the spec. Between files, the hashes of models, datasets and specs form a chain. What a file lacks, as
an older or another program wrote it, is not compared.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rtt import records
from rtt.errors import UserError
from rtt.files import digest, read_json
from rtt.scoring.correct import asked_of
from rtt.scoring.held_out import texts, total
from rtt.study import plugins
from rtt.study.names import ASKED, IN_EVALUATIONS, OF_ATTACKS, asked_for, setting_text
from rtt.study.strict import AS_WRITTEN

ADVICE = "the file was changed or damaged; put the right one in its place, or delete {} and start the study again"


class Evidence(NamedTuple):
    """The part of an evaluation that other files must agree with. Each entry is None where the file lacks it."""

    spec: str | None = None  # hash of its spec
    source: str | None = None  # hash of the spec of the original model
    facts: str | None = None  # hash of the spec of its facts
    dataset: str | None = None  # sha256 of its facts
    model: str | None = None  # hash of the model that was scored, or that the method began with
    full: str | None = None  # of a compact evaluation: sha256 of the file that it was made from


def check(path: Path, document: dict) -> Evidence:
    """Compare an evaluation with itself; return what other files must agree with. Raises UserError."""
    try:
        return _check(path, document)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"{path}: not what a step writes ({error!r:.80}); {ADVICE.format(path)}") from None


def _check(path: Path, document: dict) -> Evidence:
    spec, hashes = document.get("spec"), document.get("hashes")
    if not isinstance(hashes, dict):
        hashes = {}
    _accuracies(path, document)
    if not isinstance(spec, dict) or not {"kind", "seed"} <= spec.keys():  # every spec of ours has these
        return Evidence()
    found = digest(spec)
    _same(path, "hashes.spec", hashes.get("spec"), found)
    run, target = document["run_id"], ""
    if document["kind"] == "attacked":
        run = path.parent.name  # names of runs and targets may hold dots, so only the folder tells where one ends
        target = document["run_id"].removeprefix(f"{run}.")
    _same(path, "the hash in its name", run.rpartition("-")[2], found[:10])
    _same(path, "run_id", document["run_id"], f"{path.parent.name}.{path.stem}" if target else path.stem)
    for name, value in _labels(document["kind"], spec, target).items():
        _same(path, f"labels.{name}", document["labels"].get(name), value)
    _planned(path, document, spec)
    source = spec if document["kind"] == "original" else spec.get("source")
    facts = spec.get("facts") or (source or {}).get("facts")
    return Evidence(
        found,
        digest(source) if isinstance(source, dict) else None,
        digest(facts) if isinstance(facts, dict) else None,
        hashes.get("dataset"),
        hashes.get("model"),
        (document.get("full") or {}).get("sha256"),
    )


def _same(path: Path, what: str, found: Any, expected: Any) -> None:
    if found is not None and expected is not None and found != expected:
        again = path.parent if path.parent.name not in ("evals", "point_choices") else path
        raise UserError(f"{path}: {what} is {found!r}, the rest of the file says {expected!r}; {ADVICE.format(again)}")


def _labels(kind: str, spec: dict, target: str) -> dict[str, Any]:
    """Return the labels that follow from a spec; None where this program does not know what follows."""
    source = spec if kind == "original" else spec.get("source") or {}
    inner = source.get("model") or (source.get("base") or {}).get("model") or {}
    found = {"model": inner.get("name"), "method": None, "attack": None}
    found["unlearning_repeat"] = spec.get("repeat", 0) if kind == "unlearned" else 0
    if kind == "attacked":
        targets = {one.get("name"): one for one in spec.get("targets") or ()}
        one = targets.get(target, {})
        found |= {key: spec.get(key) for key in ("seed", "arm", "attack", "control_for")}
        found |= {"target": one.get("kind"), "method": one.get("method"), "retain_budget": one.get("retain_budget")}
        found["unlearning_repeat"] = one.get("repeat", 0)
        facts = spec.get("facts") or {}
    else:
        found |= {"seed": source.get("seed"), "arm": source.get("arm"), "method": spec.get("method")}
        facts = source.get("facts") or {}
    return found | {"dataset": (facts.get("raw") or {}).get("dataset")}


def _planned(path: Path, document: dict, spec: dict) -> None:
    """Compare the looks with what the spec has the step score: settings and V splits, points, probes."""
    kind, looks, settings = document["kind"], document["looks"], spec.get("settings") or {}
    target = document["labels"].get("target")
    if document.get("status") == "none_within_budget" and target != "unlearned":
        raise UserError(
            f"{path}: status is 'none_within_budget', but the {target} needs no point: expected ok, with looks; "
            f"{ADVICE.format(path.parent)}"
        )
    if not looks:
        return
    plugin = plugins.attacks().get(spec.get("attack")) if kind == "attacked" else None
    scores = spec.get("scores") or (spec.get("source") or {}).get("scores") or {}
    answers = ASKED if plugin is None or plugin.answers is None else plugin.answers
    expected = [probe for probe in ASKED if probe in scores.get("probes", ()) and probe in answers]
    expected += [probe for probe in OF_ATTACKS if probe in answers]
    for index, look in enumerate(looks):
        asked = {probe for question in look["questions"] for probe in asked_of(question["probes"])}
        _as_planned(path, f"probes of looks[{index}]", [probe for probe in IN_EVALUATIONS if probe in asked], expected)
    if kind == "unlearned":
        _as_planned(path, "steps of the looks", sorted(look["step"] for look in looks), _points(settings, looks))
    if plugin is None:
        return
    try:
        read = plugins.of_plugin({plugin.name: plugin}, plugin.name, settings, AS_WRITTEN)
    except ValueError:  # settings of another program's plug-in by this name
        return
    found = list(dict.fromkeys(setting_text(look["setting"]) for look in looks))
    _as_planned(path, "settings of the looks", found, [setting_text(one) for one in plugin.choices(read)])
    splits = list(dict.fromkeys(question["split"] for question in looks[0]["questions"]))[: plugin.v_splits(read)]
    found = list(dict.fromkeys(look["v_split"] for look in looks))
    _as_planned(path, "V splits of the looks", sorted(found, key=str), sorted(splits) if plugin.asks_t() else [None])


def _points(settings: dict, looks: list[dict]) -> list[int] | None:
    """Return the steps that a trajectory's settings have scored; of epochs, the first look tells the length."""
    if "external_model" in settings:
        return [0]
    first = min(look["step"] for look in looks)
    return settings.get("points") or [first * epoch for epoch in range(1, (settings.get("epochs") or 0) + 1)] or None


def _as_planned(path: Path, what: str, found: list, expected: list | None) -> None:
    """Raise UserError with what is missing or too much, where looks are not those of the spec."""
    if not expected or found == expected:
        return
    missing, more = ([one for one in a if one not in b] for a, b in ((expected, found), (found, expected)))
    odd = [f"{word} {', '.join(map(str, one))}" for word, one in (("without", missing), ("with", more)) if one]
    again = path.parent if path.parent.name not in ("evals", "point_choices") else path
    odd = "; ".join(odd) or "in another order"
    raise UserError(
        f"{path}: the {what} are not those of the spec: {odd} (found {len(found)}, the spec has {len(expected)}); "
        f"{ADVICE.format(again)}"
    )


def _accuracies(path: Path, document: dict) -> None:
    """Compare the accuracies and the held-out text among the metrics with those of the scores."""
    metrics = document.get("metrics")
    said = metrics.get("accuracies") if isinstance(metrics, dict) else None
    if not isinstance(said, list):
        return
    _same(path, "the number of metrics.accuracies", len(said), len(document["looks"]))
    for index, (one, look) in enumerate(zip(said, document["looks"], strict=True)):
        for key in ("attack", "setting", "v_split", "repeat", "step"):
            _same(path, f"metrics.accuracies[{index}].{key}", one.get(key), look.get(key))
        _same(path, f"metrics.accuracies[{index}].text", one.get("text"), total(texts(look["questions"])) or {})
        for role, probes in (one.get("accuracy") or {}).items():
            asked = [question for question in look["questions"] if question["role"] == role]
            for probe, value in probes.items():
                hits = sum(_hit(question["probes"], probe, question["answer"]) for question in asked)
                where = f"metrics.accuracies[{index}].accuracy.{role}.{probe}"
                _same(path, where, value, round(hits / len(asked), 6) if asked else None)


def _hit(answered: dict, probe: str, answer: int) -> float:
    """Return whether a question is answered right; of choices that tie in `letter_permuted`, a share."""
    if probe == "sampled":
        return answered[probe]["scores"][answer] > 0
    found, per = answered[asked_for(probe)], {"likelihood_token": "tokens", "likelihood_byte": "bytes"}.get(probe)
    counts = found[per] if per else [1] * len(found["scores"])
    scores = [score / count for score, count in zip(found["scores"], counts, strict=True)]
    best = [i for i, score in enumerate(scores) if score == max(scores)]
    return (answer in best) / len(best) if probe == "letter_permuted" else best[0] == answer


# The chain


def check_chain(found: Iterable, root: Path | None = None) -> None:
    """Compare what evaluations (each with `path`, `evidence`, `labels`) say of the same model or dataset.

    With `root`, the results folder, also with its audits and point choices. Raises UserError that names two files.
    """
    found = [one for one in found if one.evidence.spec]
    originals = {one.evidence.spec: one for one in found if one.evidence.spec == one.evidence.source}
    datasets: dict[str, tuple[str, Path]] = {}
    if root is not None:
        _as_recorded(root, {one.path: one.evidence.full for one in found})
        for path in sorted(root.glob("data/*/audit.json")):
            audit = read_json(path)
            if isinstance(audit, dict) and isinstance(audit.get("facts_sha256"), str):
                datasets[path.parent.name.rpartition("-")[2]] = audit["facts_sha256"], path
    for one in found:
        said = one.evidence
        if said.facts and said.dataset:
            value, path = datasets.setdefault(said.facts[:10], (said.dataset, one.path))
            _agree(one.path, "hashes.dataset", said.dataset, value, path)
        original = originals.get(said.source or "")
        if original is not None and (one.labels.target == "original" or one.labels.attack is None):
            _agree(one.path, "hashes.model", said.model, original.evidence.model, original.path)


def _as_recorded(root: Path, paths: dict[Path, str | None]) -> None:
    """Compare evaluations with the sha256 that the manifests of their steps have, where these are there.

    paths: with the sha256 of the full evaluation, where that is a compact one.
    """
    for manifest in sorted({root / "manifests" / f"{path.relative_to(root / 'evals').parts[0]}" for path in paths}):
        manifest = manifest.with_name(f"{manifest.name.removesuffix('.json')}.json")
        made = records.read_record(manifest).get("made")
        for path in records.changed(root, made):
            if path in paths and paths[path] != made[path.relative_to(root).as_posix()]:
                again = path.parent if path.parent != root / "evals" else path
                raise UserError(f"{path}: its sha256 is not the one in {manifest}; {ADVICE.format(again)}")


def _agree(path: Path, what: str, found: Any, expected: Any, other: Path) -> None:
    if found is not None and expected is not None and found != expected:
        raise UserError(
            f"{path}: {what} is {str(found)[:10]}..., {other} says {str(expected)[:10]}...: one of the two was "
            "changed, or made from other files; delete both and start the study again"
        )


def checked(path: Path) -> dict:
    """Read an evaluation as a step does that needs its scores, and compare it with itself. Raises UserError."""
    document = read_json(path)
    if isinstance(document, dict) and "compact" in document:
        raise UserError(
            f"{path}: is a compact evaluation, which holds answers and no scores; put the full one in its place, or "
            "delete it and start the study again"
        )
    check(Path(path), document)
    return document
