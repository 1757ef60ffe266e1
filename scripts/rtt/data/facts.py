"""Canonical facts: one format for every dataset (docs/architecture.md, docs/data.md).

`python -m rtt facts DIR` reads a folder in the authors' schema, audits it, applies the policy on defects and writes
`facts.jsonl` and `audit.json`.
"""

import argparse
import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from rtt.code_version import code_version
from rtt.data.audit import KINDS, audit, fact_id
from rtt.data.reader import Folder, read_folder, role
from rtt.errors import UserError
from rtt.files import canonical_json, write_json, write_text

ACTIONS = ("keep", "drop", "stop")
# What happens to the facts concerned when a study says nothing. Why each: docs/data.md.
DEFAULT_POLICY = {
    "split_leak": "drop",
    "conflicting_answer": "drop",
    "duplicate_choice": "drop",
    "duplicate_wrong_choice": "keep",
    "duplicate_question": "drop",
    "missing_text": "drop",
    "missing_rows": "keep",
    "missing_mcq": "keep",
    "wrong_text": "keep",
    "future_year": "keep",
    "letter_prior": "keep",
}
NO_FACTS = ("missing_mcq", "letter_prior")  # kinds that concern a text or a split, no fact: nothing to drop
SHOWN = 20  # places in a message; the audit lists them all


@dataclass(frozen=True)
class Fact:
    """One fact, as every later step reads it: a line of `facts.jsonl`.

    `choices` and `fresh_choices` are 4 strings each, the correct one at index `answer` (from 0) in both. `origin` is
    the MCQ's {"file", "line"}. The three lists of sentences may be empty where the policy keeps facts without text.
    """

    id: str
    dataset: str
    split: str
    question: str
    choices: list[str]
    answer: int
    fresh_choices: list[str]
    sentences: list[str]
    ria_sentences: list[str]
    fif_sentences: list[str]
    origin: dict[str, Any]


def write_facts(path: str | Path, facts: list[Fact]) -> None:
    """Write facts as JSONL in the given order, keys sorted, whole or not at all: the same bytes for the same facts."""
    write_text(path, "".join(canonical_json(asdict(fact)) + "\n" for fact in facts))


def read_facts(path: str | Path) -> list[Fact]:
    """Read `facts.jsonl`. Raises UserError with file and line when it is missing or not what `write_facts` writes."""
    try:
        lines = Path(path).read_bytes().decode("utf-8").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start + 1} is not UTF-8; write the file with `rtt facts`") from None
    if lines[-1]:
        raise UserError(f"{path}:{len(lines)}: the last line is cut off; write the file again with `rtt facts`")
    return [_fact(line, f"{path}:{number}") for number, line in enumerate(lines[:-1], 1)]


def _fact(line: str, place: str) -> Fact:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON: {str(error)[:80]}") from None
    names = [field.name for field in fields(Fact)]
    if not isinstance(row, dict) or sorted(row) != sorted(names):
        found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        raise UserError(f"{place}: found {found}; a fact has the keys {', '.join(names)}")
    for key, value in row.items():
        if key == "origin":
            good = isinstance(value, dict) and set(value) == {"file", "line"}
        elif key == "answer":
            good = type(value) is int and 0 <= value <= 3
        elif key in ("id", "dataset", "split", "question"):
            good = isinstance(value, str)
        else:
            good = isinstance(value, list) and all(isinstance(text, str) for text in value)
            good = good and ("choices" not in key or len(value) == 4)
        if not good:
            raise UserError(f"{place}: key {key!r} is not as docs/architecture.md says: {canonical_json(value)[:80]}")
    return Fact(**row)


def build_facts(
    folder: str | Path,
    dataset: str,
    splits: list[str] | None,
    policy: dict[str, str],
    seed: int,
    per_split: int | None = None,
) -> tuple[list[Fact], dict]:
    """Read a dataset's folder and return (facts, audit object), the policy on defects applied.

    `splits`: which, in which order (None: all). `policy`: {kind of defect: keep, drop or stop}; a kind that it lacks
    has DEFAULT_POLICY's. `seed` draws `fresh_choices` alone. The audit is of the whole folder; its `dropped` counts
    each dropped fact once, under the first kind (in the order of `rtt.data.audit.KINDS`) that drops it, and `facts`
    those that are left. Raises UserError: malformed input, unknown split, kind or action, a defect with the policy
    `stop`, a split without facts left, too few fresh values.
    """
    actions = {**DEFAULT_POLICY, **policy}
    for kind, action in actions.items():
        if kind not in DEFAULT_POLICY or action not in ACTIONS:
            why = "malformed input always stops" if kind == "malformed" else f"kinds: {', '.join(DEFAULT_POLICY)}"
            raise UserError(f"data.policy.{kind}: found {action!r}; actions: {', '.join(ACTIONS)}; {why}")
        if action == "drop" and kind in NO_FACTS:
            raise UserError(
                f"data.policy.{kind}: nothing to drop, the defect concerns no single fact; use keep or stop"
            )
    read = read_folder(folder)
    result = audit(read, dataset)
    if read.malformed:
        places = [f"{read.path / file}:{line}: {message}" for file, line, message in read.malformed]
        raise UserError(_listing(f"{len(places)} malformed lines; correct the file(s)", places))
    splits = read.splits if splits is None else list(splits)
    unknown = [split for split in splits if split not in read.splits]
    if unknown or not splits or len(set(splits)) < len(splits):
        found = repr(unknown[0]) if unknown else f"{splits}"
        raise UserError(f"{folder}: splits: found {found}; expected different ones of {', '.join(read.splits)}")

    chosen = {fact_id(dataset, mcq) for mcq in read.mcqs if mcq.split in splits}
    stops = defaultdict(list)
    dropped: dict[str, set[str]] = {kind: set() for kind in DEFAULT_POLICY if actions[kind] == "drop"}
    gone: set[str] = set()
    for detail in result["details"]:  # in the order of KINDS
        kind, concerned = detail["kind"], chosen & set(detail.get("fact_ids", ()))
        if actions[kind] == "drop":
            dropped[kind] |= concerned - gone
            gone |= concerned
        elif actions[kind] == "stop" and (concerned or role(detail["path"])[1] in splits):
            stops[kind].append(f"{read.path / detail['path']}:{detail['line']}: {detail['message']}")
    if stops:
        parts = [
            _listing(f"{len(places)} x {kind}; correct the data, or set data.policy.{kind} to keep or drop", places)
            for kind, places in stops.items()
        ]
        raise UserError("\n".join(parts))
    result["dropped"] = {kind: len(dropped[kind]) for kind in KINDS if dropped.get(kind)}

    kept = _facts(read, dataset, splits, gone, seed)
    if not kept:
        counts = ", ".join(f"{n} by data.policy.{kind}" for kind, n in result["dropped"].items())
        raise UserError(
            f"{folder}: no facts are left: {counts or 'no questions'}; set a policy to keep or correct the data"
        )
    if empty := [split for split in splits if all(fact.split != split for fact in kept)]:
        counts = ", ".join(f"{n} by data.policy.{kind}" for kind, n in result["dropped"].items())
        raise UserError(
            f"{folder}: no fact of {', '.join(empty)} is left (dropped from all splits: {counts}); leave the split out "
            "with splits:, correct the data, or set a policy to keep"
        )
    if per_split:
        kept = _trimmed(kept, splits, per_split, folder)
    result["facts"] = len(kept)
    return kept, result


def _trimmed(facts: list[Fact], splits: list[str], n: int, folder) -> list[Fact]:
    """Return each split's first `n` facts, so that an arm and its control have equal splits."""
    chosen = []
    for split in splits:
        found = [fact for fact in facts if fact.split == split]
        if len(found) < n:
            raise UserError(f"{folder}: split {split} has {len(found)} facts left, facts_per_split asks for {n}")
        chosen += found[:n]
    return chosen


def _listing(head: str, places: list[str]) -> str:
    more = [f"... and {len(places) - SHOWN} more: python -m rtt audit lists them"] if len(places) > SHOWN else []
    return "\n  ".join([head + ":", *places[:SHOWN], *more])


def _facts(folder: Folder, dataset: str, splits: list[str], gone: set[str], seed: int) -> list[Fact]:
    """Return the facts of `splits` whose ids are not in `gone`, in file order."""
    texts = defaultdict(lambda: defaultdict(list))
    trained = defaultdict(set)  # index of the question -> wrong answers that its RIA and FIF sentences state
    for sentence in folder.sentences:
        if sentence.mcq is not None:
            texts[sentence.mcq][sentence.kind].append(sentence.text)
            trained[sentence.mcq] |= set(sentence.wrong or ())
    answers = defaultdict(set)  # a question that stands twice -> all its answers
    for mcq in folder.mcqs:
        answers[mcq.key].add(mcq.correct)
    pool = sorted(mcq.correct for mcq in folder.mcqs)
    facts = []
    for i in [i for split in splits for i, mcq in enumerate(folder.mcqs) if mcq.split == split]:
        mcq = folder.mcqs[i]
        if fact_id(dataset, mcq) in gone:
            continue
        taken = {value.strip() for value in (*mcq.choices, *answers[mcq.key], *trained[i])}
        fresh = fresh_choices(
            fact_id(dataset, mcq), mcq.correct, mcq.answer, [v for v in pool if v.strip() not in taken], seed
        )
        facts.append(
            Fact(
                id=fact_id(dataset, mcq),
                dataset=dataset,
                split=mcq.split,
                question=mcq.question,
                choices=list(mcq.choices),
                answer=mcq.answer,
                fresh_choices=fresh,
                sentences=texts[i]["sentences"],
                ria_sentences=texts[i]["ria_sentences"],
                fif_sentences=texts[i]["fif_sentences"],
                origin={"file": mcq.file, "line": mcq.line},
            )
        )
    return facts


def fresh_choices(name: str, correct: str, answer: int, pool: list[str], seed: int) -> list[str]:
    """Return 4 choices: `correct` at index `answer`, the others distinct values drawn from `pool`.

    A value is as likely as it is frequent in the pool: distractors that are rarer as answers than the correct one would
    let a guesser who knows the answers' distribution alone pass the floor (Years: .36). The draw depends on `seed`, the
    fact's id `name` and the pool alone. Raises UserError when the pool has fewer than 3 values.
    """
    first = {value.strip(): value for value in pool}
    counts = Counter(value.strip() for value in pool)
    values = list(first.values())
    if len(values) < 3:
        raise UserError(
            f"{name}: fresh distractors need 3 correct answers of other facts that are neither among its choices nor "
            f"trained on, found {len(values)}; give the dataset more facts or more varied answers"
        )
    share = np.array([counts[value] for value in first], float)
    rng = np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")])
    drawn = [values[i] for i in rng.choice(len(values), 3, replace=False, p=share / share.sum())]
    return [*drawn[:answer], correct, *drawn[answer:]]


def _policy(text: str) -> dict[str, str]:
    pairs = [part.split("=") for part in text.split(",") if part]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected kind=keep|drop|stop,kind=...")
    return dict(pairs)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `facts`."""
    parser.add_argument("dir", metavar="DIR", help="a dataset's folder of JSONL files")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="the dataset's name in the facts")
    parser.add_argument("--out", required=True, metavar="FILE", help="facts.jsonl to write")
    parser.add_argument("--audit", required=True, metavar="FILE", help="audit.json to write")
    parser.add_argument("--splits", metavar="A,B,...", help="the splits to take, in this order (default: all)")
    parser.add_argument("--facts-per-split", type=int, metavar="N", help="each split's first N facts (default: all)")
    parser.add_argument(
        "--on-defect",
        type=_policy,
        default={},
        metavar="KIND=ACTION,...",
        help="keep, drop or stop, by kind of defect: "
        + ", ".join(f"{kind} ({action})" for kind, action in DEFAULT_POLICY.items()),
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the fresh distractors, from 0 (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Write facts.jsonl and audit.json of a dataset's folder; return 0."""
    if args.seed < 0:
        raise UserError(f"--seed: found {args.seed}, expected 0 or more")
    splits = None if args.splits is None else [split.strip() for split in args.splits.split(",")]
    facts, result = build_facts(args.dir, args.dataset, splits, args.on_defect, args.seed, args.facts_per_split)
    write_facts(args.out, facts)
    write_json(args.audit, result | {"code": code_version("facts")})
    return 0
