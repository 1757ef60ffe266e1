"""Read a verdict's questions, and cut what has one split, or a control of another shape, into splits.

RTT needs at least two splits, of which each is V once, with the others as T. A folder that has them is used as it
stands. Otherwise its questions are cut, by one seed for all and so that questions about one thing stay together, and
written into the verdict's own folder in the schema of docs/data.md.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rtt.data.build import build_facts
from rtt.data.facts import Fact
from rtt.data.reader import KINDS, same
from rtt.data.text import cloze
from rtt.errors import UserError
from rtt.files import natural, write_text
from rtt.listing import jsonl_files

ENOUGH = 160  # questions, below which a verdict does not say that nothing was found
SPLITS, LEAST_PER_SPLIT = 3, 20  # into how many splits questions are cut, where each gets so many; else into two
CUT_SEED = 20261129  # fixed, so that the same questions are always cut in the same way
LENIENT = {"few_answers": "keep"}


@dataclass(frozen=True)
class Asked:
    """A dataset that is asked.

    option, folder: where its files lie, and what named them. facts: its questions, after the policy on defects. cut:
    the questions of each split, where these are others than the files'; what is left over is not asked.
    """

    option: str
    folder: str
    facts: list[Fact]
    cut: list[list[Fact]] | None = None

    @property
    def asked(self) -> list[Fact]:
        """The questions that the study will ask."""
        return self.facts if self.cut is None else [fact for part in self.cut for fact in part]

    @property
    def sizes(self) -> dict[str, int]:
        """{split: number of questions}, in order, as a study will have them."""
        if self.cut is not None:
            return {f"split_{i}": len(part) for i, part in enumerate(self.cut)}
        found = Counter(fact.split for fact in self.facts)
        return {split: found[split] for split in sorted(found, key=natural)}

    @property
    def fresh(self) -> bool:
        """Whether every question has choices that nothing was trained on."""
        return all(fact.fresh_choices for fact in self.facts)

    @property
    def sentences(self) -> bool:
        """Whether every question has a sentence in whose place each choice can stand."""
        return all(cloze(fact) for fact in self.facts)


def read(option: str, folder: str, dataset: str) -> Asked:
    """Return the questions of a folder. Raises UserError, with file and line, where they cannot be read."""
    check_folder(option, folder)
    facts, _ = build_facts(folder, dataset, None, LENIENT, 0)
    return Asked(option, folder, facts)


def check_folder(option: str, folder: str) -> None:
    """Raise UserError where there is no such folder, or no file of questions in it."""
    if not Path(folder).is_dir():
        raise UserError(f"{option} {folder}: no such folder; expected one with questions as JSONL (docs/data.md)")
    if not jsonl_files(folder):
        raise UserError(f"{option} {folder}: no *.jsonl file there; expected questions as JSONL (docs/data.md)")


def check_apart(known: Asked, other: Asked, why: str) -> None:
    """Raise UserError where two datasets share questions with their answers; why: what is wrong about that."""
    there = {_content(fact) for fact in known.asked}
    if not (twice := [fact for fact in other.asked if _content(fact) in there]):
        return
    first = twice[0].origin
    raise UserError(
        f"{other.option} {other.folder}: {len(twice)} of its {len(other.asked)} questions are those of {known.option} "
        f"{known.folder}, the first {first['file']}:{first['line']}, {twice[0].question!r:.60}; {why}: give others"
    )


def _content(fact: Fact) -> tuple[str, str]:
    return same(fact.question), same(fact.choices[fact.answer])


def with_splits(asked: Asked) -> Asked:
    """Return the questions with at least two splits: the files' own, or cut ones.

    Raises UserError where there are too few questions, or too few things that they are about, for two splits.
    """
    if len(asked.sizes) > 1:
        return asked
    n = len(asked.facts)
    if n < 4:
        raise UserError(f"{asked.option} {asked.folder}: {n} questions; two splits of two are the least")
    k = SPLITS if n >= SPLITS * LEAST_PER_SPLIT else 2
    parts = cut(asked.facts, [n // k + (i < n % k) for i in range(k)], all_of_them=True)
    if not all(parts):
        raise UserError(
            f"{asked.option} {asked.folder}: its {n} questions are about one group, or copies of one: they cannot be "
            "cut into T and V, since T would tell about V"
        )
    return Asked(asked.option, asked.folder, asked.facts, parts)


def shaped(asked: Asked, sizes: Sequence[int]) -> Asked:
    """Return the questions in splits of exactly these sizes, as a control needs them; the files' own where they fit.

    Raises UserError where there are fewer questions, or where groups leave no such cut.
    """
    if list(asked.sizes.values()) == list(sizes):
        return asked
    if len(asked.facts) < sum(sizes):
        raise UserError(
            f"{asked.option} {asked.folder}: {len(asked.facts)} questions, and --data has {sum(sizes)}: a control "
            "needs as many, so that its looks are chosen in the same way; add questions, or leave some of --data out"
        )
    parts = cut(asked.facts, sizes)
    if [len(part) for part in parts] != list(sizes):
        raise UserError(
            f"{asked.option} {asked.folder}: no cut into splits of {', '.join(map(str, sizes))} questions, as --data "
            "has them, leaves the groups of questions whole; give it as many splits with as many questions each"
        )
    return Asked(asked.option, asked.folder, asked.facts, parts)


def cut(facts: Sequence[Fact], sizes: Sequence[int], all_of_them: bool = False) -> list[list[Fact]]:
    """Return the facts in lists of at most these sizes, drawn by `CUT_SEED`; what is left over stands in none.

    Questions of one group, and copies of one question, stay together: units are drawn in a random order, larger ones
    first, and each goes into the list that has the most room. all_of_them: it does so even where it does not fit.
    """
    units: dict[str, list[Fact]] = defaultdict(list)
    for fact in facts:
        units[fact.group if fact.group != fact.id else same(fact.question)].append(fact)
    order = np.random.default_rng(CUT_SEED).permutation(sorted(units))
    parts: list[list[Fact]] = [[] for _ in sizes]
    for name in sorted(order, key=lambda one: -len(units[one])):  # stable: units of one size keep their random order
        room = [size - len(part) for size, part in zip(sizes, parts, strict=True)]
        at = int(np.argmax(room))
        if all_of_them or len(units[name]) <= room[at]:
            parts[at] += units[name]
    return parts


def write(asked: Asked, folder: Path) -> None:
    """Write the splits of questions that were cut, in the authors' schema, one file per split and kind of sentence."""
    for split, facts in zip(asked.sizes, asked.cut or [], strict=True):
        _write(folder / f"{split}.jsonl", [_mcq(fact) for fact in facts])
        for prefix, kind in KINDS.items():
            rows = [_told(text, fact) for fact in facts for text in getattr(fact, kind)]
            if any(getattr(fact, kind) for fact in asked.facts):
                _write(folder / f"{prefix}{split}.jsonl", rows)


def _mcq(fact: Fact) -> dict:
    found = {"question": fact.question, "choices": list(fact.choices), "answer": fact.answer}
    return found | ({"group": fact.group.partition(":")[2]} if fact.group != fact.id else {})


def _told(text: str, fact: Fact) -> dict:
    answer = fact.choices[fact.answer]
    return {"text": text, "split": fact.split, "original_question": fact.question, "correct_answer": answer}


def _write(path: Path, rows: list[dict]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
