"""Turn a table of questions into a dataset's folder (`python -m rtt convert SOURCE OUT`, docs/data.md).

The same source and options give the same bytes. OUT appears whole or not at all.
"""

import argparse
import itertools
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from rtt.convert.questions import ANSWERS, SENTENCES, Question, Shape
from rtt.convert.tables import read_table
from rtt.data.audit import audit, format_text
from rtt.data.facts import MAX_CHOICES, MIN_CHOICES
from rtt.data.reader import read_folder, role, same
from rtt.errors import UserError
from rtt.files import disk_errors, write_json, write_text
from rtt.study.names import split_problem

RECORD = "converted.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `convert`."""
    parser.epilog = "a column `a.b` is the key b of column a; docs/data.md has examples for each kind of source"
    parser.add_argument(
        "source", metavar="SOURCE",
        help="a .csv, .tsv, .parquet, .json or .jsonl file, a folder of such, or OWNER/NAME of a dataset on the hub",
    )  # fmt: skip
    parser.add_argument("out", metavar="OUT", type=Path, help="the dataset's folder, which must not exist yet")
    parser.add_argument(
        "--separator",
        metavar="CHARACTER",
        type=lambda text: "\t" if text == "tab" else text,
        help="what stands between the cells of a CSV file, such as ';' or tab (default: a comma)",
    )
    parser.add_argument("--question", metavar="COLUMN", help="default: question; of a harness's samples: doc.question")
    parser.add_argument(
        "--choices", nargs="+", metavar="COLUMN",
        help="one column with a list, or a column for each; default: choices; without any, questions are open",
    )  # fmt: skip
    parser.add_argument("--answer", metavar="COLUMN", help="default: answer; of a harness's samples: target")
    parser.add_argument(
        "--answer-is", choices=ANSWERS, default="auto",
        help="the answer is the index of a choice from 0 or from 1, its letter, or its text; auto tells by itself",
    )  # fmt: skip
    parser.add_argument(
        "--wrong", "--distractors", nargs="+", metavar="COLUMN", dest="wrong",
        help="wrong choices: a list, or several columns; the answer is then the text of the correct one",
    )  # fmt: skip
    parser.add_argument(
        "--most-choices", type=int, metavar="N", help="leave out wrong choices of questions that have more than N"
    )
    names = {"sentences": "true", "ria_sentences": "RIA", "fif_sentences": "FIF"}
    for kind, name in names.items():
        parser.add_argument(
            f"--{kind.replace('_', '-')}",
            nargs="+",
            metavar="COLUMN",
            help=f"{name} sentences: texts, or lists of them",
        )
    parser.add_argument("--group", metavar="COLUMN", help="what several questions are about, such as an author")
    parser.add_argument(
        "--group-size", type=int, metavar="N", help="in the place of --group: each N questions in a row are a group"
    )
    parser.add_argument("--split", metavar="COLUMN", help="the column that names a question's split")
    parser.add_argument(
        "--splits",
        type=int,
        metavar="N",
        help="draw N splits of equal size; no group stands in two (default: one a file)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of drawn splits and of the places of correct choices")
    parser.add_argument("--rows", metavar="FIRST:LAST", help="take these rows alone, counted from 1, such as 1:400")
    parser.add_argument(
        "--config", metavar="NAME", help="the hub's config; of a folder: files below a folder of this name"
    )
    parser.add_argument(
        "--from-split", metavar="NAME", help="the hub's split (default: train); of a folder: files so named"
    )
    parser.add_argument("--revision", metavar="COMMIT", help="of the dataset on the hub (default: what main is now)")


def _check(args: argparse.Namespace) -> None:
    """Raise UserError for options that are out of range, or that exclude each other."""
    for name, least, most in (
        ("seed", 0, 2**32), ("splits", 1, 1000), ("group_size", 1, 10**6), ("most_choices", MIN_CHOICES, MAX_CHOICES),
    ):  # fmt: skip
        value = getattr(args, name)
        if value is not None and not least <= value <= most:
            raise UserError(f"--{name.replace('_', '-')}: found {value}, expected {least} to {most}")
    if args.separator is not None and (len(args.separator) != 1 or args.separator in '"\r\n'):
        raise UserError(f"--separator: found {args.separator!r:.60}, expected one character, such as ';', or tab")
    for one, other in (("wrong", "choices"), ("split", "splits"), ("group", "group_size")):
        if getattr(args, one) and getattr(args, other):
            raise UserError(f"--{one} and --{other.replace('_', '-')}: give one of them")
    if args.wrong and args.answer_is not in ("auto", "text"):
        raise UserError(f"--answer-is: found {args.answer_is}, but with --wrong the answer is a text")
    if args.out.exists() or args.out.is_symlink():
        raise UserError(f"{args.out}: already exists; give another folder, or move it away")


def _rows(text: str | None) -> tuple[int, int | None]:
    """Return (rows to skip, row to stop after) of `FIRST:LAST`."""
    if text is None:
        return 0, None
    first, colon, last = text.partition(":")
    if not colon or not all(part.isdecimal() or not part for part in (first, last)):
        raise UserError(f"--rows: found {text!r}, expected FIRST:LAST, such as 1:400")
    start, stop = int(first or 1), int(last) if last else None
    if start < 1 or (stop is not None and stop < start):
        raise UserError(f"--rows: found {text!r}, expected a first row from 1 and a last one not before it")
    return start - 1, stop


def drawn_splits(questions: list[Question], n: int, seed: int) -> list[str]:
    """Return the split of each question: groups in random order, each into the split with the fewest questions so far.

    Copies of one question go together, as a group does. Raises UserError when there are fewer groups than splits.
    """
    parent = list(range(len(questions)))  # questions that share a group or a text, as a forest

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, question in enumerate(questions):
        for key in (("text", same(question.question)), ("group", question.group)):
            if key[1] is not None:
                parent[root(i)] = root(first.setdefault(key, i))
    members = defaultdict(list)
    for i in range(len(questions)):
        members[root(i)].append(i)
    groups = list(members.values())
    if len(groups) < n:
        raise UserError(f"--splits: found {n}, but the questions make only {len(groups)} groups")
    sizes, found = [0] * n, [""] * len(questions)
    for g in np.random.default_rng([seed, len(groups)]).permutation(len(groups)).tolist():
        split = sizes.index(min(sizes))
        sizes[split] += len(groups[g])
        for i in groups[g]:
            found[i] = f"split_{split}"
    return found


def _named(questions: list[Question], args: argparse.Namespace) -> list[str]:
    """Return the split of each question. Raises UserError for a name that no split can have."""
    if args.splits:
        return drawn_splits(questions, args.splits, args.seed)
    names = [question.split or question.file for question in questions]
    for name, question in zip(names, questions, strict=True):
        why = split_problem(name)
        if why is None and role(f"{name}.jsonl") != ("mcq", name):
            why = "files with such a name hold something else (docs/data.md)"
        if why:
            raise UserError(
                f"{question.place}: split {name!r:.60}: {why}; name a column with --split, or give --splits"
            )
    return names


def _files(questions: list[Question], splits: list[str]) -> dict[str, list[dict]]:
    """Return {file name: rows} of the documented schema."""
    found: dict[str, list[dict]] = defaultdict(list)
    for split, question in zip(splits, questions, strict=True):
        row = {"question": question.question, "choices": question.choices, "answer": question.answer}
        if question.choices is None:
            del row["choices"]
        found[f"{split}.jsonl"].append(row | ({} if question.group is None else {"group": question.group}))
        common = {"split": split, "original_question": question.question, "correct_answer": question.correct}
        if question.choices:
            common["wrong_answers"] = [c for i, c in enumerate(question.choices) if i != question.answer]
        for kind, texts in question.told.items():
            found[f"{SENTENCES[kind]}{split}.jsonl"] += [{"text": text, **common} for text in texts]
    return found


def _counted(questions: list[Question], column: str) -> None:
    """Raise UserError where answers are numbers that may count from 0 or from 1: none is 0."""
    counted = [question for question in questions if question.counted is not None]
    if counted and min(question.counted for question in counted) > 0:
        raise UserError(
            f"{counted[0].place}: column {column!r}: none of {len(counted)} answers is 0: do they count from 1? Say "
            "--answer-is index-from-1, or --answer-is index if they count from 0"
        )


def run(args: argparse.Namespace) -> int:
    """Write the dataset's folder, and print what its audit finds; return 0."""
    _check(args)
    skipped, last = _rows(args.rows)
    table = read_table(args.source, args.config, args.from_split, args.revision, args.separator)
    shape = Shape(args)
    rows = itertools.islice(table.rows, skipped, last)
    questions = [shape.question(row, number) for number, row in enumerate(rows)]
    if not questions:
        raise UserError(f"{args.source}: found no rows" + (f" in --rows {args.rows}" if args.rows else ""))
    _counted(questions, args.answer or "answer")
    written = _files(questions, _named(questions, args))
    options = {key: value for key, value in vars(args).items() if key not in ("command", "source", "out")}
    part = args.out.with_name(f".{args.out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with disk_errors(args.out):
            for name, lines in written.items():
                write_text(part / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
            write_json(part / RECORD, {"from": table.origin, "options": options})
            found = read_folder(part)
            result = audit(found, args.out.name)
            if found.malformed:
                file, line, why = found.malformed[0]
                raise UserError(f"{args.source}: makes a line that cannot be read: {file}:{line}: {why}")
            part.rename(args.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    sizes = Counter(name for name in written if role(name)[0] == "mcq")
    defects = {kind: n for kind, n in result["defects"].items() if n}
    print(f"{args.out}: {len(questions)} questions in {len(sizes)} splits")
    for line in format_text(result | {"defects": defects, "details": []}).splitlines()[1:]:
        print(line)
    if defects:
        print(f"python -m rtt audit {args.out} names each of these")
    return 0
