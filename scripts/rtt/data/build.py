"""Turn a dataset's files into canonical facts (docs/data.md).

`python -m rtt facts DIR` reads a folder in the authors' schema, audits it, applies the policy on defects and writes
`facts.jsonl` and `audit.json`.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

from rtt.code_version import code_version
from rtt.data.audit import KINDS, audit, fact_id
from rtt.data.distractors import DISTRACTORS, Answers
from rtt.data.facts import MAX_CHOICES, Fact, write_facts
from rtt.data.guesser import guesses, warnings
from rtt.data.reader import Folder, read_folder, role
from rtt.errors import UserError, printable
from rtt.files import sha256, write_json
from rtt.study.names import split_problem
from rtt.study.settings import Policy
from rtt.study.strict import AS_WRITTEN

ACTIONS = ("keep", "drop", "stop")
# The action for each kind of defect that is not named. A study names all but those that came later and are as before.
DEFAULT_POLICY = Policy.model_validate({}, context=AS_WRITTEN).model_dump()
NO_FACTS = ("missing_mcq", "letter_prior")  # these kinds concern a text or a split: there is no fact to drop
OTHERWISE = defaultdict(
    lambda: "keep or drop",
    few_answers="drop, or to keep and leave likelihood_fresh out of scores.probes",
) | {kind: "keep" for kind in NO_FACTS}
SHOWN = 20  # places that a message names at most; the audit lists them all


def build_facts(
    folder: str | Path,
    dataset: str,
    splits: list[str] | None,
    policy: dict[str, str],
    seed: int,
    per_split: int | None = None,
    distractors: int = DISTRACTORS,
) -> tuple[list[Fact], dict]:
    """Read a dataset's folder, apply the policy on defects, and return (facts, audit object).

    `splits` names the splits to take, in order (None: all). `policy` maps kinds of defect to keep, drop or stop; kinds
    that it lacks follow DEFAULT_POLICY. `seed` only draws `fresh_choices`, and the `distractors` wrong choices of open
    questions. `per_split` takes each split's first facts.

    The audit covers the whole folder. Its `dropped` counts each dropped fact once, under the first kind (in the order
    of `rtt.data.audit.KINDS`) that drops it; its `facts` counts those that are left. Raises UserError for malformed
    input, for an unknown split, kind or action, for a defect whose policy is `stop`, and for a split without facts.
    """
    actions = {**DEFAULT_POLICY, **policy}
    for kind, action in actions.items():
        if kind not in DEFAULT_POLICY or action not in ACTIONS:
            why = "malformed input always stops" if kind == "malformed" else f"kinds: {', '.join(DEFAULT_POLICY)}"
            raise UserError(f"data.policy.{kind}: found {action!r}; actions: {', '.join(ACTIONS)}; {why}")
        if action == "drop" and kind in NO_FACTS:
            raise UserError(
                f"data.policy.{kind}: found 'drop', but this defect concerns no single fact; use keep or stop"
            )
    read = read_folder(folder)
    result = audit(read, dataset, distractors=distractors, seed=seed)
    if read.malformed:
        places = [f"{read.path / file}:{line}: {message}" for file, line, message in read.malformed]
        raise UserError(_listing(f"{len(places)} malformed lines; correct the file(s)", places))
    splits = read.splits if splits is None else list(splits)
    unknown = [split for split in splits if split not in read.splits]
    if unknown or not splits or len(set(splits)) < len(splits):
        found = repr(unknown[0]) if unknown else f"{splits}"
        raise UserError(f"{folder}: splits: found {found}; expected distinct names from {', '.join(read.splits)}")
    for split in splits:
        if why := split_problem(split):
            raise UserError(f"{read.path / split}.jsonl: the name of split {split!r}: {why}")

    chosen = {fact_id(dataset, mcq) for mcq in read.mcqs if mcq.split in splits}
    stops = defaultdict(list)
    dropped: dict[str, set[str]] = {kind: set() for kind in DEFAULT_POLICY if actions[kind] == "drop"}
    gone: set[str] = set()
    for detail in result["details"]:  # in the order of KINDS
        kind, concerned = detail["kind"], chosen & set(detail.get("fact_ids", ()))
        if actions[kind] == "drop":
            dropped[kind] |= concerned - gone
            gone |= concerned
            continue
        # A fact that is dropped needs no fresh choices.
        hit = concerned - gone if kind == "few_answers" else concerned or role(detail["path"])[1] in splits
        if actions[kind] == "stop" and hit:
            stops[kind].append(f"{read.path / detail['path']}:{detail['line']}: {detail['message']}")
    if stops:
        parts = [
            _listing(
                f"{len(places)} x {kind}; correct the data, or set data.policy.{kind} to {OTHERWISE[kind]}", places
            )
            for kind, places in stops.items()
        ]
        raise UserError("\n".join(parts))
    result["dropped"] = {kind: len(dropped[kind]) for kind in KINDS if dropped.get(kind)}

    kept = _facts(read, dataset, splits, gone, seed, distractors)
    if not kept:
        counts = ", ".join(f"{n} by data.policy.{kind}" for kind, n in result["dropped"].items())
        raise UserError(
            f"{folder}: no facts are left: {counts or 'no questions'}; set a policy to keep, or correct the data"
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


def _facts(folder: Folder, dataset: str, splits: list[str], gone: set[str], seed: int, distractors: int) -> list[Fact]:
    """Return the facts of `splits` whose ids are not in `gone`, in file order."""
    texts = defaultdict(lambda: defaultdict(list))
    for sentence in folder.sentences:
        if sentence.mcq is not None:
            texts[sentence.mcq][sentence.kind].append(sentence.text)
    answers = Answers(folder, distractors)
    facts = []
    for i in [i for split in splits for i, mcq in enumerate(folder.mcqs) if mcq.split == split]:
        mcq, name = folder.mcqs[i], fact_id(dataset, folder.mcqs[i])
        if name in gone:
            continue
        choices, answer = answers.choices(i, name, seed)
        facts.append(
            Fact(
                id=name,
                dataset=dataset,
                split=mcq.split,
                question=mcq.question,
                choices=choices,
                answer=answer,
                fresh_choices=answers.fresh(i, name, choices, answer, seed),
                sentences=texts[i]["sentences"],
                ria_sentences=texts[i]["ria_sentences"],
                fif_sentences=texts[i]["fif_sentences"],
                origin={"file": mcq.file, "line": mcq.line},
                group="" if mcq.group is None else f"{dataset}:{mcq.group}",  # no id: an id goes on with a slash
            )
        )
    return facts


def _policy(text: str) -> dict[str, str]:
    pairs = [part.split("=") for part in text.split(",") if part]
    if any(len(pair) != 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected kind=keep|drop|stop,kind=...")
    return dict(pairs)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `facts`."""
    parser.add_argument("dir", metavar="DIR", help="a dataset's folder of JSONL files")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="the dataset's name in the facts")
    parser.add_argument("--out", required=True, metavar="FILE", help="where to write facts.jsonl")
    parser.add_argument("--audit", required=True, metavar="FILE", help="where to write audit.json")
    parser.add_argument("--splits", metavar="A,B,...", help="take these splits, in this order (default: all)")
    parser.add_argument(
        "--facts-per-split", type=int, metavar="N", help="take the first N facts of each split (default: all)"
    )
    parser.add_argument(
        "--on-defect",
        type=_policy,
        default={},
        metavar="KIND=ACTION,...",
        help="what to do with each kind of defect, keep, drop or stop; defaults: "
        + ", ".join(f"{kind} ({action})" for kind, action in DEFAULT_POLICY.items()),
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the fresh distractors, from 0 (default: %(default)s)"
    )
    parser.add_argument(
        "--distractors",
        type=int,
        default=DISTRACTORS,
        metavar="N",
        help="draw so many wrong choices for a question without choices (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Write facts.jsonl and audit.json of a dataset's folder; return 0."""
    if args.seed < 0:
        raise UserError(f"--seed: found {args.seed}, expected 0 or more")
    if not 1 <= args.distractors < MAX_CHOICES:
        raise UserError(f"--distractors: found {args.distractors}, expected 1 to {MAX_CHOICES - 1}")
    if args.facts_per_split is not None and args.facts_per_split < 1:
        raise UserError(f"--facts-per-split: found {args.facts_per_split}, expected 1 or more")
    splits = None if args.splits is None else [split.strip() for split in args.splits.split(",")]
    facts, result = build_facts(
        args.dir, args.dataset, splits, args.on_defect, args.seed, args.facts_per_split, args.distractors
    )
    result["guesser"] = guesses(facts, args.seed)
    result["notes"] += (told := warnings(result["guesser"]))
    for line in told:
        print(printable(f"{args.dataset}: {line}"), file=sys.stderr)
    write_facts(args.out, facts)
    write_json(args.audit, result | {"code": code_version("facts"), "facts_sha256": sha256(args.out)})
    return 0
