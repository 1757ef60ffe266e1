"""Read the retain data of a step."""

import argparse
import json
from pathlib import Path

from rtt.data.facts import Fact, read_facts
from rtt.errors import UserError
from rtt.study.specs import Retain, TextsSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every step that trains on retain data or scores it."""
    parser.add_argument("--retain", required=True, help="facts.jsonl, or texts (JSONL), for the retain loss")
    parser.add_argument("--held-out", required=True, help="facts.jsonl for retain accuracy")


def read_retain(retain: Retain, args: argparse.Namespace) -> tuple[list[Fact] | list[str], list[Fact]]:
    """Return (what the retain loss trains on, held-out facts), both restricted to the splits that the spec names.

    Raises UserError when a split has no facts.
    """

    def facts(path, splits):
        found = read_facts(path)
        known = {fact.split for fact in found}
        if absent := [split for split in splits or () if split not in known]:
            there = ", ".join(sorted(known)) or "none"
            raise UserError(f"{path}: retain splits: found no fact in {', '.join(absent)}; expected some of {there}")
        return [fact for fact in found if splits is None or fact.split in splits]

    if isinstance(retain.learn, TextsSpec):
        return read_texts(args.retain, retain.learn.max_characters), facts(args.held_out, retain.held_out_splits)
    return facts(args.retain, retain.learn_splits), facts(args.held_out, retain.held_out_splits)


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
