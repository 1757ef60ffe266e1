"""Retain data, as the steps read it."""

import argparse
import json
from pathlib import Path

from rtt.data.facts import Fact, read_facts
from rtt.errors import UserError
from rtt.study.specs import Retain, TextsSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every step that trains or scores beside retain data."""
    parser.add_argument("--retain", required=True, help="canonical facts, or texts (JSONL), of the retain loss")
    parser.add_argument("--held-out", required=True, help="canonical facts that give retain accuracy")


def read_retain(retain: Retain, args: argparse.Namespace) -> tuple[list[Fact] | list[str], list[Fact]]:
    """Return (what the retain loss learns, held-out facts), the splits of the spec alone.

    Raises UserError when a split is empty.
    """

    def facts(path, splits):
        found = read_facts(path)
        known = {fact.split for fact in found}
        if absent := [split for split in splits or () if split not in known]:
            there = ", ".join(sorted(known)) or "none"
            raise UserError(f"{path}: no retain fact in splits {absent}; the dataset has {there}: name those")
        return [fact for fact in found if splits is None or fact.split in splits]

    if isinstance(retain.learn, TextsSpec):
        return read_texts(args.retain, retain.learn.max_characters), facts(args.held_out, retain.held_out_splits)
    return facts(args.retain, retain.learn_splits), facts(args.held_out, retain.held_out_splits)


def read_texts(path: str | Path, max_characters: int | None = None) -> list[str]:
    """Read plain texts, {"text": ...} a line, up to `max_characters` of each. Raises UserError with file and line."""
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
        raise UserError(f"{path}: no text in this file; fetch it again")
    return texts
