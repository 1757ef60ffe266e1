"""Phrases that titles, alternative texts and the report share: counts, means, lists."""

import textwrap
from collections.abc import Iterable

import pandas as pd

from rtt.figures.style import number, span, value_of


def counted_of(rows: pd.DataFrame) -> str:
    """Say how many cells count: `2 of 4 methods count as unlearned`; of several seeds or arms they are models."""
    panels = rows[["dataset", "model", "arm", "seed"]].drop_duplicates()
    noun = "method" if len(panels) == 1 else "model"
    n, of = int(rows["counts"].sum()), len(rows)
    if of == 1:
        return f"The one {noun} {'counts' if n else 'does not count'} as unlearned"
    verb = "counts" if n == 1 else "count"
    return f"{upper(count(n, of, noun))} {verb} as unlearned"


def unclear(rows: pd.DataFrame, column: str) -> pd.Series:
    """Return which rows name the measure in their `cannot_tell`."""
    return pd.Series([column in str(text).split(";") for text in rows["cannot_tell"]], rows.index, dtype=bool)


def wrapped(text: str, width: int) -> str:
    """Break a title into lines of at most `width` characters, about equally long; a percentage stays with its sign."""
    text = text.replace(" %", "\u00a0%")
    lines = textwrap.wrap(text, width, break_long_words=False)
    longest = max(map(len, text.split(" ")))  # no line gets shorter than a word, nor a word a line more
    while width > longest and len(shorter := textwrap.wrap(text, width - 1, break_long_words=False)) == len(lines) > 1:
        lines, width = shorter, width - 1
    return "\n".join(lines).replace("\u00a0", " ")


def count(n: int, of: int, noun: str) -> str:
    """Write `3 of 4 methods`, `all 4 methods`, `both methods`, `none of 4 methods`, `the one method`."""
    if n == of == 2:
        return f"both {noun}s"
    if of == 1:
        return f"the one {noun}" if n else f"none of 1 {noun}"
    return f"{'all' if n == of else 'none of' if n == 0 else f'{n} of'} {of} {noun}s"


def upper(text: str) -> str:
    """Return the text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def listed(names: Iterable[str]) -> str:
    """Write names as `GD, RMU and RIA`."""
    *head, last = names
    return f"{', '.join(head)} and {last}" if head else last


def counted(rows: pd.DataFrame) -> str:
    """Write the number of questions of some rows: `n = 160`, or `n = 150 to 160`."""
    low, high = int(rows["n_questions"].min()), int(rows["n_questions"].max())
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def mean_text(rows: pd.DataFrame, column: str) -> str:
    """Write one seed's value with its interval, or the mean and the range of several seeds."""
    known = rows.dropna(subset=[column])
    if known.empty:
        return "no value"
    if len(known) == 1:
        return value_of(known.iloc[0], column) if f"{column}_low" in known else number(known[column].iloc[0])
    wide = int(unclear(known, column).sum())
    told = f", {wide} of {len(known)} cannot tell" if wide else ""
    return f"{number(known[column].mean())} (seeds {span(known[column])}{told})"


def statuses(rows: pd.DataFrame) -> str:
    """Name the statuses that are not `ok`, in brackets."""
    odd = list(dict.fromkeys(status.replace("_", " ") for status in rows["status"] if status != "ok"))
    return f" ({', '.join(odd)})" if odd else ""


def look_text(looks: pd.DataFrame) -> str:
    """Write the accuracy of some looks at one setting (columns as of `View.curve`), as `mean_text` does."""
    rows = looks.rename(columns={"low": "accuracy_low", "high": "accuracy_high"})
    return mean_text(rows.assign(cannot_tell=""), "accuracy")
