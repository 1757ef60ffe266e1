"""Put compact evaluations (`rtt.scoring.compact`) in the place of full ones, before they are bundled.

Those of the study's main seed also keep the probabilities of the choices: at the chosen points, and of V at the looks
that each headline probe chooses. questions.csv is made of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rtt.errors import UserError
from rtt.files import canonical_json, read_json, sha256, write_text
from rtt.scoring import compact, probabilities
from rtt.scoring.read import AttackScores, PointScores, read_eval, read_point_choices
from rtt.stats.reported import attacked
from rtt.stats.shown import main_seed
from rtt.stats.variants import probe_order
from rtt.study.names import ASKED, asked_for


def compacted(results: Path, stems: Iterable[str]) -> None:
    """Make evaluations of a results folder compact, and write their questions beside them.

    What is compact already stays. A file is replaced, so that another hard link to it keeps the full one. Raises
    UserError where an evaluation is damaged.
    """
    study, chosen = read_json(results / "runs.json")["study"], _chosen_points(results)
    for stem in stems:
        path = results / "evals" / f"{stem}.json"
        document = read_json(path)
        if compact.is_compact(document):
            continue
        document, questions = made(results, stem, document, study, chosen)
        for name, table in questions.items():
            write_text(results / compact.FOLDER / f"{name[:10]}.json", canonical_json(table) + "\n")
        write_text(path, canonical_json(document) + "\n")


def made(results: Path, stem: str, document: dict, study: Mapping, chosen: Mapping[str, set]) -> tuple[dict, dict]:
    """Return the compact form of a full evaluation, and {sha256: questions} that it refers to.

    chosen: {trajectory: the steps of its points that are chosen for a retain budget}.
    """
    path, spec = results / "evals" / f"{stem}.json", results / "specs" / f"{stem.partition('/')[0]}.json"
    scores = read_eval(path)
    full = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    found, questions = compact.make(scores, document, full, read_json(spec) if spec.is_file() else None)
    if found["answers"] and scores.labels.seed == main_seed(study["seeds"]):
        wanted = _points(scores, chosen) if isinstance(scores, PointScores) else _looks(scores, study)
        found["probabilities"] = probabilities.of(document, wanted, compact.sets(scores)["forget"][0])
    return found, questions


def _chosen_points(results: Path) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for choice in read_point_choices(results / "point_choices").values():
        for run, step in filter(None, choice.points.values()):
            found.setdefault(run, set()).add(step)
    return found


def _points(scores: PointScores, chosen: Mapping[str, set[int]]) -> list[tuple[dict, Sequence[str]]]:
    """Return an original's one look, or those of a trajectory's chosen points, with all probes."""
    steps = scores.steps if scores.labels.method is None else chosen.get(scores.run_id, ())
    return [({"step": step}, ASKED) for step in sorted(steps)]


def _looks(scores: AttackScores, study: Mapping) -> list[tuple[dict, Sequence[str]]]:
    """Return the looks that nested choice takes by each headline probe in each repeat, with that probe."""
    found: dict[tuple, list[str]] = {}
    order, criteria = probe_order(Path("runs.json"), study)
    first = [probe for probe in order if probe in scores.correct][:1]  # that of questions.csv
    for probe in dict.fromkeys([*criteria.judges(scores.correct), *first]):
        for repeat, pairs in enumerate(attacked(scores, probe, "nested").pairs):
            for look, split in pairs:
                probes = found.setdefault((repeat, look, split if scores.uses_t else 0), [])
                probes += [asked_for(probe)] * (asked_for(probe) not in probes)
    v_splits = scores.v_splits if scores.uses_t else [None]
    return [
        ({"setting": scores.settings[look], "v_split": v_splits[split], "repeat": repeat}, probes)
        for (repeat, look, split), probes in sorted(found.items())
    ]


def check_full(results: Path, full: Path) -> int:
    """Compare the compact evaluations of a results folder with the full ones of another, from which they were made.

    Returns how many there are. Raises UserError at the first that differs or is missing.
    """
    paths = sorted((results / "evals").rglob("*.json"))
    study, chosen, found = read_json(results / "runs.json")["study"], _chosen_points(results), 0
    for path in paths:
        document, stem = read_json(path), path.relative_to(results / "evals").as_posix().removesuffix(".json")
        if not compact.is_compact(document):
            continue
        other = full / "evals" / f"{stem}.json"
        if not other.is_file():
            raise UserError(f"{other}: no such file; expected the full evaluation from which {path} was made")
        if sha256(other) != document["full"]["sha256"]:
            raise UserError(f"{other}: its sha256 is not the one that {path} names: this was made from another file")
        if made(full, stem, read_json(other), study, chosen)[0] != document:
            raise UserError(f"{path}: is not what {other} gives: its answers were changed, or other code made it")
        found += 1
    return found
