"""Audit a dataset: list the defects of its files, each with file and line (`python -m rtt audit DIR`).

The input is a dataset's folder, or a folder of such; the output is the audit object of docs/data.md, printed as text or
JSON. `rtt facts` writes the same object to `audit.json`. The audit changes nothing: the policy of `rtt.data.build`
decides what happens to the facts concerned.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import zip_longest
from math import comb
from pathlib import Path

from rtt.data.distractors import DISTRACTORS, Answers, answer_kind
from rtt.data.facts import LETTERS
from rtt.data.reader import DEV, Folder, Mcq, holds, read_folder, role
from rtt.data.reader import KINDS as SENTENCE_FILES
from rtt.errors import UserError, printable
from rtt.files import natural

KINDS = (
    "malformed",
    "split_leak",
    "group_leak",
    "conflicting_answer",
    "duplicate_choice",
    "duplicate_wrong_choice",
    "duplicate_question",
    "missing_text",
    "missing_rows",
    "missing_mcq",
    "wrong_text",
    "future_year",
    "letter_prior",
    "lone_answer",
    "few_answers",
)
# The year of the authors' data (their commit of 2024-10-08): with today's year the audit would change by itself.
REFERENCE_YEAR = 2024
LETTER_LEVEL = Fraction(5, 100)  # significance level of `_letters`, over all letters
NAMES = {"sentences": "true", "ria_sentences": "RIA", "fif_sentences": "FIF"}


def fact_id(dataset: str, mcq: Mcq) -> str:
    """Return the id of the fact that a question states: `<dataset>/<split>/<line, at least 3 digits>`."""
    return f"{dataset}/{mcq.split}/{mcq.line:03d}"


def binomial_tail(successes: int, n: int, p: Fraction) -> Fraction:
    """Return P(X >= successes) for X ~ Binomial(n, p), exactly."""
    return sum((comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(successes, n + 1)), Fraction(0))


def audit_folder(path: str | Path, dataset: str | None = None, year: int = REFERENCE_YEAR) -> dict:
    """Read and audit one dataset's folder; return the audit object. `dataset` defaults to the folder's name."""
    return audit(read_folder(path), dataset or Path(path).resolve().name, year)


def audit(
    folder: Folder, dataset: str, year: int = REFERENCE_YEAR, distractors: int = DISTRACTORS, seed: int | None = None
) -> dict:
    """Return the audit object (docs/data.md) of a folder that was read.

    Birth years after `year` count as in the future. An open question gets so many `distractors`, drawn with `seed`.
    """
    details = [
        {"kind": "malformed", "path": file, "line": line, "message": message}
        for file, line, message in folder.malformed
    ]

    def add(
        kind: str, path: str, line: int, message: str, mcqs: list[Mcq] | None = None, places: list[str] = ()
    ) -> None:
        detail = {"kind": kind, "path": path, "line": line, "message": message}
        if mcqs is not None:
            detail["fact_ids"] = [fact_id(dataset, mcq) for mcq in mcqs]
        if places:
            detail["places"] = list(places)
        details.append(detail)

    _questions(folder, add)
    _choices(folder, year, add)
    _texts(folder, add)
    letters = {split: _letter_counts(folder, split) for split in folder.splits}
    for split, counts in letters.items():
        _letters(split, counts, add)
    answers = Answers(folder, distractors)
    _answers(folder, answers, add)
    order = {kind: i for i, kind in enumerate(KINDS)}
    details.sort(key=lambda detail: (order[detail["kind"]], natural(detail["path"]), detail["line"]))
    found = Counter(detail["kind"] for detail in details)
    kinds = Counter(sentence.kind for sentence in folder.sentences)
    return {
        "dataset": dataset,
        "files": len(folder.files),
        "rows": sum(folder.rows[f"{split}.jsonl"] for split in folder.splits),
        "questions": len({mcq.key for mcq in folder.mcqs}),
        "facts": len(folder.mcqs),
        "texts": {kind: kinds[kind] for kind in NAMES},
        "texts_in_another_split": sum(
            s.mcq is not None and folder.mcqs[s.mcq].split != s.split for s in folder.sentences
        ),
        "defects": {kind: found[kind] for kind in KINDS},
        "details": details,
        "letter_counts": {
            split: [sum(column) for column in zip_longest(*counts.values(), fillvalue=0)]
            for split, counts in letters.items()
        },
        "majority_letter_accuracy": {
            split: round(sum(map(max, counts.values())) / sum(map(sum, counts.values())), 6) if counts else None
            for split, counts in letters.items()
        },
        "reference_year": year,
        "sha256": folder.sha256,
        "dropped": {},
        "guesser": {},
        "notes": _notes(folder, answers, seed),
    }


def _quote(text: str) -> str:
    """Return the text on one line, cut at the front to 90 characters: questions of one template differ at their end."""
    text = " ".join(text.split())
    return repr(text if len(text) <= 90 else "…" + text[-89:])


def _questions(folder: Folder, add) -> None:
    """Find duplicate_question, conflicting_answer, split_leak and group_leak."""
    copies = defaultdict(list)
    for mcq in folder.mcqs:
        copies[mcq.key].append(mcq)
    few_shot = {mcq.key: mcq for mcq in folder.dev}
    for key, mcqs in copies.items():
        first, places = mcqs[0], [mcq.place for mcq in mcqs]
        where = f"{_quote(first.question)} appears at {', '.join(places)}"
        if len(mcqs) > 1:
            add("duplicate_question", first.file, first.line, where, mcqs[1:], places)
        elif key in few_shot:
            dev = few_shot[key]
            text = f"{where} and in the few-shot file, {dev.place}"
            add("duplicate_question", first.file, first.line, text, [], [*places, dev.place])
        if len({mcq.correct.strip() for mcq in mcqs}) > 1:
            answers = ", ".join(f"{mcq.place} says {_quote(mcq.correct)}" for mcq in mcqs)
            text = f"{_quote(first.question)} has conflicting answers: {answers}"
            add("conflicting_answer", first.file, first.line, text, mcqs, places)
        if len({mcq.split for mcq in mcqs}) > 1:
            text = f"{where}: one of them is in T while the other is in V, so these facts are not independent"
            add("split_leak", first.file, first.line, text, mcqs, places)
    groups = defaultdict(list)
    for mcq in folder.mcqs:
        if mcq.group is not None:
            groups[mcq.group].append(mcq)
    for group, mcqs in groups.items():
        if len({mcq.split for mcq in mcqs}) > 1:
            first, places = mcqs[0], [mcq.place for mcq in mcqs]
            counts = ", ".join(f"{split} ({n})" for split, n in Counter(mcq.split for mcq in mcqs).items())
            text = (
                f"the group {_quote(group)} has questions in more than one split: {counts}; it would be in T and in V"
            )
            add("group_leak", first.file, first.line, text, mcqs, places)


def _choices(folder: Folder, year: int, add) -> None:
    """Find duplicate_choice, duplicate_wrong_choice and future_year."""
    for mcq in folder.mcqs:
        choices = [choice.strip() for choice in mcq.choices]
        repeated = [choice for choice, n in Counter(choices).items() if n > 1]
        if mcq.correct.strip() in repeated:
            letters = " and ".join(
                letter for letter, c in zip(LETTERS, choices, strict=False) if c == mcq.correct.strip()
            )
            text = f"the correct choice {_quote(mcq.correct)} appears more than once, as {letters}"
            add("duplicate_choice", mcq.file, mcq.line, text, [mcq])
        elif repeated:
            text = f"the wrong choice {_quote(repeated[0])} appears more than once: fewer than "
            text += f"{len(choices)} different choices"
            add("duplicate_wrong_choice", mcq.file, mcq.line, text, [mcq])
        answer = mcq.correct.strip()
        dated = re.match(r"(when|(in )?(what|which) year)\b", mcq.key)
        if dated and re.fullmatch("[0-9]{4}", answer) and int(answer) > year:
            text = f"the answer {answer} to {_quote(mcq.question)} lies after {year}, the year of the data"
            add("future_year", mcq.file, mcq.line, text, [mcq])


def _texts(folder: Folder, add) -> None:
    """Find missing_mcq, missing_text, missing_rows and wrong_text."""
    events = defaultdict(list)  # sentences that no question fits, by event
    has = defaultdict(Counter)  # (split of the file, index of the question) -> number of its sentences by kind
    kinds_of = defaultdict(set)  # index of the question -> kinds of its sentences
    for sentence in folder.sentences:
        if sentence.mcq is None:
            event = sentence.place if sentence.event is None else (sentence.split, sentence.event)
            events[event].append(sentence)
        else:
            has[sentence.split, sentence.mcq][sentence.kind] += 1
            kinds_of[sentence.mcq].add(sentence.kind)
            wrong = sentence.wrong or ()
            years = sentence.kind != "sentences" and wrong and all(re.fullmatch("[0-9]{4}", year) for year in wrong)
            if years and not any(holds(sentence.text, year) for year in wrong):
                text = f"this {NAMES[sentence.kind]} sentence states none of its wrong answers: {_quote(sentence.text)}"
                add("wrong_text", sentence.file, sentence.line, text, [folder.mcqs[sentence.mcq]])
    for event, sentences in events.items():
        first = sentences[0]
        question, places = first.question, [sentence.place for sentence in sentences]
        if first.event is not None:
            pair = folder.pairs[event[0]][event[1]]
            question, places = pair.question, [*places, pair.place]
        about = f" about {_quote(question)}" if question else ""
        text = f"no question and answer in the MCQ files match the text {_quote(first.text)}{about}"
        add("missing_mcq", first.file, first.line, text, None, places if len(places) > 1 else ())

    present = folder.told
    expected = ["sentences", *(kind for kind in NAMES if kind in present and kind != "sentences")] if present else []
    for i, mcq in enumerate(folder.mcqs):
        lacking = [NAMES[kind] for kind in expected if kind not in kinds_of[i]]
        if lacking:
            text = f"no {', no '.join(lacking)} sentence states the fact of {_quote(mcq.question)}"
            add("missing_text", mcq.file, mcq.line, text, [mcq])

    splits = {split for kind, split in map(role, folder.files) if (kind in NAMES or kind == "mcq") and split != DEV}
    for split in sorted(splits if expected else (), key=natural):
        files = {kind: f"{prefix}{split}.jsonl" for prefix, kind in SENTENCE_FILES.items()}
        rows = {kind: folder.rows.get(files[kind], 0) for kind in expected}
        most = max(rows.values())
        for kind in expected:
            if rows[kind] == most:
                continue
            short = [i for (s, i), counts in has.items() if s == split and counts[kind] < max(counts.values())]
            short = [folder.mcqs[i] for i in sorted(short)]
            absent = files[kind] not in folder.rows
            path = f"{split}.jsonl" if absent and f"{split}.jsonl" in folder.rows else files[kind]
            fuller = next(files[other] for other in expected if rows[other] == most)
            text = (
                f"{files[kind]} {'is absent' if absent else f'holds {rows[kind]} rows'}, {fuller} {most}; "
                f"{len(short)} facts have fewer {NAMES[kind]} sentences than sentences of another kind"
            )
            add("missing_rows", path, max(1, rows[kind]), text, short)


def _letter_counts(folder: Folder, split: str) -> dict[int, list[int]]:
    """Return {number of choices: [questions of the split answered by A, by B, ...]}, in ascending order."""
    found = Counter((len(mcq.choices), mcq.answer) for mcq in folder.mcqs if mcq.split == split and not mcq.open)
    return {k: [found[k, letter] for letter in range(k)] for k in sorted({k for k, _ in found})}


def _letters(split: str, letters: dict[int, list[int]], add) -> None:
    """Find letter_prior: the most frequent letter of a split is correct significantly more often than by chance.

    Questions with k choices are judged apart from others. A one-sided exact binomial test compares the letter's count
    with 1/k. The letter is the largest of k, so the level of 5 % is divided by k, and by the number of such tests
    (Bonferroni): at most about one in twenty unbiased splits is reported.
    """
    for k, counts in letters.items():
        n, most = sum(counts), max(counts)
        if binomial_tail(most, n, Fraction(1, k)) * k * len(letters) <= LETTER_LEVEL:
            letter, of = LETTERS[counts.index(most)], f" with {k} choices" if len(letters) > 1 else ""
            rate = f"{most} of {n} questions{of} ({100 * most / n:.1f} %)"
            text = f"always answering {letter} is correct for {rate}: {100 / k:.3g} % is the wrong floor"
            add("letter_prior", f"{split}.jsonl", 1, text)


def _answers(folder: Folder, answers: Answers, add) -> None:
    """Find lone_answer and few_answers."""
    for i, mcq in enumerate(folder.mcqs):
        if answers.width(i) < 2:
            kind = answer_kind(mcq.correct)
            text = f"no other answer is a {kind}, so none can be a wrong choice for {_quote(mcq.question)}"
            add("lone_answer", mcq.file, mcq.line, text, [mcq])
            continue
        found, needed = answers.few(i)
        if found < needed:
            text = (
                f"found {max(found, 0)} values for fresh distractors, expected at least {needed}: correct answers of "
                "other questions, neither among this question's choices nor trained on"
            )
            add("few_answers", mcq.file, mcq.line, text, [mcq])


def _notes(folder: Folder, answers: Answers, seed: int | None) -> list[str]:
    """Return what is no defect, but should be known: sentences about mixed numbers of choices, open questions, groups
    and missing sentences.
    """
    notes = _widths(folder)
    if opened := [i for i, mcq in enumerate(folder.mcqs) if mcq.open]:
        kinds = Counter(answer_kind(folder.mcqs[i].correct) for i in opened)
        shown = ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items(), key=lambda item: (-item[1], item[0])))
        fewer = sum(answers.width(i) <= answers.distractors for i in opened)
        drawn = "drawn" if seed is None else f"drawn with seed {seed}"
        notes.append(
            f"{len(opened)} of {len(folder.mcqs)} questions have no choices: {answers.distractors} wrong ones are "
            f"{drawn} from correct answers of other questions of the same kind: {shown}"
            + (f"; {fewer} questions get fewer" if fewer else "")
        )
    if groups := {mcq.group for mcq in folder.mcqs if mcq.group is not None}:
        notes.append(f"{sum(mcq.group is not None for mcq in folder.mcqs)} questions are in {len(groups)} groups")
    if folder.mcqs and not folder.told:
        notes.append("no file of sentences: every text of a fact is its question, whatever mcq_share says")
    return notes


def _widths(folder: Folder) -> list[str]:
    """Return a sentence on the numbers of choices where they differ: a row may have lost one of four."""
    places = defaultdict(list)
    for mcq in folder.mcqs:
        if not mcq.open:
            places[len(mcq.choices)].append(mcq.place)
    if len(places) < 2:
        return []
    parts = []
    for k, found in sorted(places.items(), key=lambda item: (-len(item[1]), -item[0])):
        named = f" ({', '.join(found[:3])}{', ...' if len(found) > 3 else ''})" if parts else ""
        parts.append(f"{k} in {len(found)}{'' if parts else ' questions'}{named}")
    return [f"choices: {', '.join(parts)}"]


def format_text(result: dict) -> str:
    """Return the audit of one dataset as text: the counts, then a line for each defect."""
    lines = [
        f"{result['dataset']}: {result['files']} files, {result['rows']} rows, {result['questions']} questions, "
        f"{result['facts']} facts"
    ]
    lines += [f"  {kind:<24}{n:>6}" for kind, n in result["defects"].items()]
    lines += [f"  {note}" for note in result["notes"]]
    lines += [f"{d['path']}:{d['line']}: {d['kind']}: {d['message']}" for d in result["details"]]
    return "\n".join(lines)


def dataset_folders(path: str | Path) -> list[Path]:
    """Return [path] if it holds JSONL files, else those of its subfolders that do. Raises UserError if none does."""
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"{path}: no such folder; expected a dataset's folder, or a folder of datasets")
    try:
        if any(path.glob("[!.]*.jsonl")):
            return [path]
        found = [entry for entry in sorted(path.iterdir()) if entry.is_dir() and any(entry.glob("[!.]*.jsonl"))]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if not found:
        raise UserError(f"{path}: found no *.jsonl file here or one folder below; docs/data.md has the schema")
    return found


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `audit`."""
    parser.epilog = "exit code: 0 if readable; 1 if a line is malformed or, with --strict, on any defect; 2 for usage"
    parser.add_argument("dir", metavar="DIR", help="a dataset's folder of JSONL files, or a folder of such folders")
    parser.add_argument("--json", action="store_true", help="print one JSON object (docs/data.md)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 on any defect")
    parser.add_argument(
        "--year", type=int, default=REFERENCE_YEAR, help="later years are in the future (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Audit a folder; return 0 if all is readable, 1 if a line is malformed (--strict: for any defect), 2 if DIR holds
    no data.
    """
    try:
        folders = dataset_folders(args.dir)
    except UserError as error:
        print(printable(f"error: {error}"), file=sys.stderr)
        return 2
    results = [audit_folder(folder, year=args.year) for folder in folders]
    many = Path(args.dir) not in folders
    if args.json:
        value = {"datasets": results} if many else results[0]
        print(json.dumps(value, sort_keys=True, ensure_ascii=True, indent=1))
    else:
        for result in results:  # an odd terminal encoding must not end in a traceback
            encoding = sys.stdout.encoding or "utf-8"
            print(format_text(result).encode(encoding, "backslashreplace").decode(encoding))
    counted = KINDS if args.strict else ("malformed",)
    return int(any(result["defects"][kind] for result in results for kind in counted))
