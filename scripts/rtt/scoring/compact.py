"""The compact form of an evaluation: which questions were answered right, as bits, in place of the scores.

A study of ten seeds has gigabytes of scores and a few megabytes of answers. The compact form holds whatever tables are
made of: all answers at all looks and points, the use of letters, the nats of held-out text, labels and hashes; so it is
read into the same PointScores and AttackScores as the full form. Questions stand once per dataset, in `questions/<10
digits of their sha256>.json` beside `evals/`.

    {"schema_version": 2, "compact": 1, "kind", "run_id", "labels", "status", "hashes",
     "spec": null where specs/ has it, "full": {"bytes", "sha256"} of the file that this was made from,
     "points": {"steps", "letters", "text"} or "attack": {"settings", "v_splits", "uses_t", "repeats"},
     "probes": [name], "questions": {set: sha256}, "answers": {set: {"bits": base64, "at": [int], "tied": [int]}},
     "accuracies": sha256 of what `accuracies` returns and of the text,
     "probabilities": of some looks (`rtt.scoring.probabilities`)}

`text` has {"nats", "tokens"} of each point, and is left out where there is no held-out text.
A set is forget, retain or choice. `bits` are those of (probe, question, look), packed by zlib: a question's answers are
much alike over the looks. `at` are the places among these of answers that count 1/`tied`.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtt.errors import UserError
from rtt.files import digest, natural, read_json
from rtt.scoring import held_out, probabilities
from rtt.scoring.question_table import LetterUse, Questions
from rtt.study.names import IN_EVALUATIONS, PROBES

VERSION = 1
FOLDER = "questions"
SETS = {"forget": "V", "retain": "retain", "choice": "choice"}  # of questions, with the role in a full evaluation
MOST = 1 << 26  # answers of one set in one file; the paper's largest evaluation has about a million
AGAIN = "the file was changed or damaged; get the bundle again"


class Held(NamedTuple):
    """What a compact evaluation holds for tables."""

    questions: dict[str, Questions]  # by set; a set without questions is left out
    correct: dict[str, dict[str, np.ndarray]]  # set -> probe -> (P, n), or (R, L, S, n) of an attack
    letters: LetterUse | None  # of points
    text: held_out.HeldOutText | None = None  # of points


def is_compact(document: Any) -> bool:
    """Return whether an evaluation is in the compact form."""
    return isinstance(document, dict) and "compact" in document


class CompactTable:
    """What `QuestionTable` is of a full evaluation, of a compact one; `document` is what `outline` returned."""

    def __init__(self, document: Mapping[str, Any], held: Held):
        self._held, sets = held, held.questions
        starts = np.cumsum([0, *(len(one.ids) for one in sets.values())])
        self._places = {name: slice(*ends) for name, ends in zip(sets, pairwise(starts), strict=True)}
        self.columns = {"id": [identifier for one in sets.values() for identifier in one.ids]}
        self.columns["role"] = [SETS[name] for name, one in sets.items() for _ in one.ids]
        self.rows: dict[str, list[np.ndarray]] = {}
        for probe in document["probes"]:
            correct = [one[probe] for one in held.correct.values()]
            self.rows[probe] = [np.concatenate([one[at] for one in correct]) for at in _look_places(document)]

    def add(self, index: int, look: Mapping[str, Any], v_split: str | None = None, attacked: bool = False) -> None:
        """Take one look: all are here already."""

    def questions(self, mask: np.ndarray) -> Questions:
        """Return the questions of a set, which the mask marks, or none."""
        marked = [name for name, place in self._places.items() if mask[place].any()]
        return self._held.questions[marked[0]] if marked else Questions((), (), (), np.zeros(0, int), np.zeros(0, int))

    def letter_use(self, mask: np.ndarray, looks: Sequence[int]) -> LetterUse:
        """Return how the models of the points use the letters."""
        return LetterUse(*(getattr(self._held.letters, one.name)[list(looks)] for one in fields(LetterUse)))

    def held_out_text(self, looks: Sequence[int]) -> held_out.HeldOutText | None:
        """Return what the models of the points make of the held-out sentences."""
        text, at = self._held.text, list(looks)
        return None if text is None else held_out.HeldOutText(text.nats[at], text.tokens[at])


def table(path: Path, document: Mapping[str, Any]) -> tuple[CompactTable, dict[str, Any]]:
    """Return a compact evaluation's questions, and the evaluation as readers of a full one take it.

    That has looks without scores, with one question of each split that has the names of the probes, and the spec, from
    specs/ where the file has none. Raises UserError where the file is damaged.
    """
    found = held(path, document)
    splits = dict.fromkeys(found.questions["forget"].splits) if found.questions else ()
    asked = {probe: {"scores": []} for probe in IN_EVALUATIONS if probe in document["probes"]}
    questions = [{"split": split, "probes": asked} for split in splits]
    none = {"attack": document["labels"].get("attack"), "setting": {}, "v_split": None, "repeat": 0}
    heads = [head for head, _ in accuracies(document, found.questions, found.correct)]
    outline = {**document, "looks": [none | head | {"questions": questions} for head in heads], "metrics": {}}
    if outline["spec"] is None:
        evals = _evals(path)
        run = path.absolute().relative_to(evals).parts[0].removesuffix(".json")
        spec = evals.parent / "specs" / f"{run}.json"
        outline["spec"] = read_json(spec) if spec.is_file() else None
    return CompactTable(document, found), outline


def rows(path: Path, document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each look's answer to each question and probe: `look`, as in `table`, `probe`, `correct` and the question's
    id, split, group, role and answer. Raises UserError where the file is damaged.
    """
    found = held(path, document)
    heads = [head for head, _ in accuracies(document, found.questions, found.correct)]
    for number, (at, head) in enumerate(zip(_look_places(document), heads, strict=True)):
        v_split = head.get("v_split")
        for name, one in found.questions.items():
            for i, identifier in enumerate(one.ids):
                role = "T" if v_split not in (None, one.splits[i]) else SETS[name]
                question = {"id": identifier, "split": one.splits[i], "group": one.groups[i], "role": role}
                question["answer"] = int(one.answers[i])
                for probe in document["probes"]:
                    yield {
                        "look": number,
                        **question,
                        "probe": probe,
                        "correct": float(found.correct[name][probe][at][i]),
                    }


def _look_places(document: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return where each look stands in the arrays of answers, in the order of `accuracies`."""
    if "points" in document:
        return [(index,) for index in range(len(document["points"]["steps"]))]
    attack = document["attack"]
    splits = len(attack["v_splits"]) if attack["uses_t"] else bool(attack["settings"])
    sizes = splits, len(attack["settings"]), attack["repeats"]
    return [(repeat, setting, split) for split, setting, repeat in np.ndindex(*map(int, sizes))]


# --- writing


def make(scores: Any, document: Mapping[str, Any], full: Mapping[str, Any], spec: Any = None) -> tuple[dict, dict]:
    """Return the compact form of an evaluation, and {sha256: questions} that it refers to.

    scores: what `rtt.scoring.read` reads from `document`, the full evaluation. full: `bytes` and `sha256` of its file.
    spec: what specs/ has for this run; where it is the evaluation's own, it is not repeated. Raises UserError where the
    answers' accuracies are not those among the document's metrics.
    """
    found = {key: document.get(key) for key in ("schema_version", "kind", "run_id", "labels", "hashes")}
    own = document.get("spec")
    found |= {"compact": VERSION, "status": document.get("status", "ok"), "full": dict(full)}
    found |= {"spec": None if own == spec else own}
    points, tables = hasattr(scores, "steps"), {}
    if points:
        found["points"] = {"steps": list(scores.steps), "letters": _letters(scores.letters)}
        found["points"] |= {} if scores.text is None else {"text": held_out.plain(scores.text)}
    else:
        repeats = len(next(iter(scores.correct.values()), ()))
        found["attack"] = {"settings": list(scores.settings), "v_splits": list(scores.v_splits)}
        found["attack"] |= {"uses_t": scores.uses_t, "repeats": repeats}
    held = sets(scores)
    found |= {"probes": [probe for probe in PROBES if probe in held["forget"][1]], "questions": {}, "answers": {}}
    for name, (questions, correct) in held.items():
        if questions.ids:
            table = _table(questions)
            found["questions"][name] = digest(table)
            tables[digest(table)] = table
            found["answers"][name] = _packed(correct)
    said = accuracies(
        found, {name: one for name, (one, _) in held.items()}, {name: one for name, (_, one) in held.items()}
    )
    _compare(Path(scores.path), said, document)
    return found | {"accuracies": _sealed(found, said)}, tables


def sets(scores: Any) -> dict[str, tuple[Questions, dict[str, np.ndarray]]]:
    """Return {set: (questions, {probe: answers})}; what an attack without T did to all V splits alike stands once."""
    if hasattr(scores, "steps"):
        return {name: (getattr(scores, name), getattr(scores, f"{name}_correct")) for name in SETS}
    once = slice(None) if scores.uses_t else slice(1)
    return {"forget": (scores.questions, {probe: found[:, :, once] for probe, found in scores.correct.items()})}


def _table(questions: Questions) -> dict[str, list | None]:
    """Return questions as plain data."""
    found = {one.name: getattr(questions, one.name) for one in fields(questions)}
    return {
        name: value if value is None else value.tolist() if isinstance(value, np.ndarray) else list(value)
        for name, value in found.items()
    }


def _packed(correct: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return answers (..., n) in [0, 1] of each probe as bits, with those that are neither 0 nor 1."""
    values = np.stack([np.moveaxis(correct[probe], -1, 0) for probe in PROBES if probe in correct])
    at = np.flatnonzero((values != 0) & (values != 1))
    tied = np.rint(1 / values.flat[at]).astype(int)
    if not np.array_equal(1 / tied, values.flat[at]):
        raise ValueError("an answer counts neither 0 nor 1 nor one over a whole number")
    text = base64.b64encode(zlib.compress(np.packbits(values == 1).tobytes(), 9)).decode()
    return {"bits": text, "at": at.tolist(), "tied": tied.tolist()}


def _letters(letters: LetterUse) -> dict[str, list]:
    """Return the use of letters as plain data, with null for NaN."""
    found = {one.name: getattr(letters, one.name) for one in fields(letters)}
    return {
        name: value.tolist() if value.dtype.kind in "iu" else [None if np.isnan(x) else float(x) for x in value]
        for name, value in found.items()
    }


# --- the accuracies, by which the bits are checked


def accuracies(
    document: Mapping[str, Any], questions: Mapping[str, Questions], correct: Mapping[str, Mapping[str, np.ndarray]]
) -> list[tuple[dict, dict[str, dict[str, float]]]]:
    """Return (what the look is, {role: {probe: accuracy}}) of each look or point, with six decimals."""
    if "points" in document:
        found = []
        for index, step in enumerate(document["points"]["steps"]):
            roles = {
                SETS[name]: {probe: round(float(rows[index].mean()), 6) for probe, rows in correct[name].items()}
                for name, one in questions.items()
                if one.ids
            }
            found.append(({} if document["kind"] == "original" else {"step": step}, roles))
        return found
    attack, shares = document["attack"], {}
    splits = np.array(questions["forget"].splits) if "forget" in questions else np.zeros(0)
    v_splits = attack["v_splits"] if attack["uses_t"] else [None]
    for s, v_split in enumerate(v_splits):
        is_v = splits == v_split if v_split is not None else np.ones(len(splits), bool)
        for role, mask in (("T", ~is_v), ("V", is_v)):
            if mask.any():
                rows = {probe: rows[:, :, s, mask].mean(axis=-1) for probe, rows in correct["forget"].items()}
                shares.setdefault(s, {})[role] = rows
    found = []
    for at in _look_places(document):
        repeat, i, s = at
        rows = {
            role: {probe: round(float(share[repeat, i]), 6) for probe, share in one.items()}
            for role, one in shares[s].items()
        }
        look = {"setting": attack["settings"][i], "v_split": v_splits[s], "repeat": repeat}
        found.append((look, rows))
    return found


def _sealed(document: Mapping[str, Any], said: list[tuple[dict, dict]]) -> str:
    """Return the sha256 of the accuracies, and of the held-out text where there is any."""
    text = document.get("points", {}).get("text", [])
    return digest([*(one for _, one in said), *text])


def _compare(path: Path, said: list[tuple[dict, dict]], document: Mapping[str, Any]) -> None:
    """Raise UserError where the accuracies of the answers are not those that the full evaluation has beside them."""
    metrics = document.get("metrics")
    listed = metrics.get("accuracies") if isinstance(metrics, Mapping) else None
    for one in listed if isinstance(listed, list) else ():
        look, rows = next(
            (pair for pair in said if all(one.get(key, value) == value for key, value in pair[0].items())), (None, {})
        )
        for role, probes in (one.get("accuracy") or {}).items():
            for probe, value in probes.items():
                mine = rows.get(role, {}).get(probe)
                if probe in PROBES and (mine is None or abs(mine - value) > 1.5e-6):
                    raise UserError(
                        f"{path}: {probe} of {role} at {look} is {mine} by the answers, the file says {value}"
                    )


# --- reading


def held(path: Path, document: Mapping[str, Any]) -> Held:
    """Return what a compact evaluation holds, checked. Raises UserError that names the file."""
    if document["compact"] != VERSION:
        raise UserError(
            f"{path}: compact is {document['compact']!r}, this program reads {VERSION}; a newer program may: `git pull`"
        )
    try:
        return _held(path, document)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError, zlib.error) as error:
        raise UserError(f"{path}: not a compact evaluation ({error!r:.80}); {AGAIN}") from None


def _held(path: Path, document: Mapping[str, Any]) -> Held:
    points, probes = "points" in document, document["probes"]
    if points:
        shape = (len(document["points"]["steps"]),)
    else:
        attack = document["attack"]
        shape = (attack["repeats"], len(attack["settings"]), len(attack["v_splits"]) if attack["uses_t"] else 1)
    if list(probes) != [probe for probe in PROBES if probe in probes] or set(document["questions"]) - set(SETS):
        raise ValueError(f"probes {probes}, sets {list(document['questions'])}")
    questions = {name: _questions(_evals(path).parent / FOLDER, one) for name, one in document["questions"].items()}
    correct = {
        name: _answers(document["answers"][name], probes, (len(one.ids), *shape)) for name, one in questions.items()
    }
    letters = _read_letters(document["points"]["letters"], shape[0]) if points else None
    text = _read_text(document["points"], shape[0]) if points else None
    for entry in document.get("probabilities", ()):
        _check_probabilities(document, entry, questions["forget"], correct["forget"])
    said = accuracies(document, questions, correct)
    if _sealed(document, said) != document["accuracies"]:
        raise UserError(f"{path}: the accuracies of its answers are not those of the scores they came from; {AGAIN}")
    return Held(questions, correct, letters, text)


def _check_probabilities(
    document: Mapping[str, Any], entry: Mapping[str, Any], questions: Questions, correct: Mapping
) -> None:
    """Raise ValueError where the likeliest choices are not the answers that the bits tell."""
    look = entry["look"]
    if "points" in document:
        at = (document["points"]["steps"].index(look["step"]),)
    else:
        attack = document["attack"]
        split = attack["v_splits"].index(look["v_split"]) if attack["uses_t"] else 0
        at = (look["repeat"], attack["settings"].index(look["setting"]), split)
    where = probabilities.places(questions, look)
    for probe, values in probabilities.read(entry, questions).items():
        if n := probabilities.contradicted(values, questions.answers[where], correct[probe][at][where]):
            raise ValueError(f"probabilities of {probe} at {look} contradict {n} answers")


def _evals(path: Path) -> Path:
    """Return the folder evals/ of an evaluation, `evals/RUN.json` or `evals/RUN/TARGET.json`."""
    parents = path.absolute().parents
    return next((parent for parent in parents[:2] if parent.name == "evals"), parents[0])


_known: dict[tuple[Path, str], Questions] = {}  # so that the evaluations of a dataset share one copy


def _questions(folder: Path, sha256: str) -> Questions:
    if (folder, sha256) in _known:
        return _known[folder, sha256]
    path = folder / f"{sha256[:10]}.json"
    table = read_json(path)
    if digest(table) != sha256:
        raise UserError(f"{path}: its sha256 is not the one by which an evaluation names it; {AGAIN}")
    n, texts = len(table["ids"]), ("ids", "splits", "groups")
    arrays = {"answers": np.array(table["answers"], int), "n_choices": np.array(table["n_choices"], int)}
    short = table["shortest"]
    found = Questions(
        *(tuple(table[key]) for key in texts), **arrays, shortest=None if short is None else np.array(short, float)
    )
    keys = [(natural(split), natural(one)) for split, one in zip(found.splits, found.ids, strict=True)]
    columns = [getattr(found, one.name) for one in fields(found)]
    if (
        any(one is not None and len(one) != n for one in columns)
        or not all(isinstance(text, str) for key in texts for text in table[key])
        or len(set(found.ids)) != n
        or keys != sorted(keys)
        or (arrays["answers"] < 0).any()
        or (arrays["answers"] >= arrays["n_choices"]).any()
        or (arrays["n_choices"] < 2).any()
        or (short is not None and not ((found.shortest >= 0) & (found.shortest <= 1)).all())
    ):
        raise UserError(f"{path}: not the questions of a dataset in the order of their splits and ids; {AGAIN}")
    _known[folder, sha256] = found
    return found


def _answers(packed: Mapping[str, Any], probes: list[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return {probe: (..., n) float}; `shape` is that of a probe's bits, (n, ...)."""
    total = len(probes) * int(np.prod(shape, dtype=object))
    if not 0 < total <= MOST:
        raise ValueError(f"{total} answers, expected 1 to {MOST}")
    size = (total + 7) // 8
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(base64.b64decode(packed["bits"], validate=True), size + 1)  # no more, whatever it holds
    if len(data) != size or not unpacker.eof:
        raise ValueError(f"{len(data)} bytes of bits, expected {size}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=total)
    values = bits.reshape(len(probes), *shape).astype(float)
    at, tied = np.array(packed["at"], int), np.array(packed["tied"], int)
    if at.shape != tied.shape or (at < 0).any() or (at >= total).any() or (tied < 2).any() or values.flat[at].any():
        raise ValueError("answers that tie are garbled")
    values.flat[at] = 1 / tied
    return {probe: np.moveaxis(one, 0, -1) for probe, one in zip(probes, values, strict=True)}


def _read_text(said: Mapping[str, Any], points: int) -> held_out.HeldOutText | None:
    found = held_out.gathered(said["text"]) if "text" in said else None
    if found is not None and (len(found.nats) != points or not (found.nats >= 0).all() or (found.tokens < 1).any()):
        raise ValueError(f"the held-out text is not that of {points} points")
    return found


def _read_letters(said: Mapping[str, Any], points: int) -> LetterUse:
    found = {
        one.name: np.array(said[one.name], int)
        if one.name == "said"
        else np.array([np.nan if x is None else x for x in said[one.name]], float)
        for one in fields(LetterUse)
    }
    if any(len(one) != points for one in found.values()) or found["said"].ndim != 2:
        raise ValueError(f"the use of letters is not that of {points} points")
    return LetterUse(**found)
