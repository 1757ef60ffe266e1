"""Read the retain data of a step."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rtt.data.facts import Fact, read_facts
from rtt.data.text import SHOTS
from rtt.errors import UserError
from rtt.study.settings import Scores
from rtt.study.specs import Retain, TextsSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every step that trains on retain data or scores it."""
    parser.add_argument("--retain", required=True, help="facts.jsonl, or texts (JSONL), for the retain loss")
    parser.add_argument("--held-out", required=True, help="facts.jsonl for retain accuracy")


def read_retain(retain: Retain, args: argparse.Namespace) -> tuple[list[Fact] | list[str], list[Fact]]:
    """Return (what the retain loss trains on, held-out facts), both restricted to the splits that the spec names.

    Raises UserError when a split has no facts.
    """
    return read_learned(retain, args.retain), read_splits(args.held_out, retain.held_out_splits)


def read_learned(retain: Retain, path: str | Path) -> list[Fact] | list[str]:
    """Return what the retain loss trains on: facts, of the splits that the spec names, or texts. Raises UserError."""
    if isinstance(retain.learn, TextsSpec):
        return read_texts(path, retain.learn.max_characters)
    return read_splits(path, retain.learn_splits)


def read_splits(path: str | Path, splits: Sequence[str] | None) -> list[Fact]:
    """Read the retain facts of these splits; None: of all. Raises UserError when a split has no facts."""
    found = read_facts(path)
    known = {fact.split for fact in found}
    if absent := [split for split in splits or () if split not in known]:
        there = ", ".join(sorted(known)) or "none"
        raise UserError(f"{path}: retain splits: found no fact in {', '.join(absent)}; expected some of {there}")
    return [fact for fact in found if splits is None or fact.split in splits]


def shots(scores: Scores, learn: Sequence[Fact | str], seed: int) -> list[Fact]:
    """Return the facts whose solved questions `few_shot` shows, drawn by the seed from those in the retain loss.

    None where it is not asked. Raises UserError where there are too few facts.
    """
    if "few_shot" not in scores.probes:
        return []
    if len(learn) < SHOTS:
        raise UserError(
            f"few_shot shows {SHOTS} solved questions of retain facts: found {len(learn)} in the retain loss"
        )
    return [learn[i] for i in np.random.default_rng([seed, 50]).choice(len(learn), SHOTS, replace=False)]


def read_texts(path: str | Path, max_characters: int | None = None) -> list[str]:
    """Read plain texts from lines of {"text": ...}, and cut each after `max_characters`.

    Raises UserError with file and line when a line is malformed or there is none.
    """
    texts = []
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        try:
            texts.append(json.loads(line)["text"][:max_characters])
        except (ValueError, KeyError, TypeError):
            raise UserError(f'{path}:{number}: expected {{"text": ...}}, found {line[:60]!r}') from None
    if not texts:
        raise UserError(f"{path}: found no texts; fetch the file again")
    return texts
