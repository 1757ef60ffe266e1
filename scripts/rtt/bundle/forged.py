"""Tell a file that cannot come from a bundle's scores from one that another environment wrote a little differently.

Tables are compared cell by cell, figures and the report word by word with their numbers, PNGs pixel by pixel; crate and
licences with what the program writes for these files. Last digits may differ. More than that is forged,
unless the bundle names other code than today's, or this environment is not the locked one.
"""

import csv
import importlib.metadata
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from rtt import places
from rtt.bundle import contents, crate, documents, licences
from rtt.bundle.layout import CRATE, DERIVED, Index, strict_json
from rtt.errors import UserError
from rtt.files import read_json

DIGITS = 2e-6  # tables have six decimals
STROKE = 0.05  # points of a figure, by which another machine's rounding may move a line
LEVEL, SHARE = 48, 0.01  # so many levels of 255, in so many of the pixels, are an edge drawn otherwise
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
DECIMALS = re.compile(r"[-+]?\d*\.(\d+)")
SVG, TAG = re.compile(r"<svg\b.*?</svg>", re.DOTALL), re.compile(r"<\w[^>]*>")  # a comment holds words, as text does
PLACE = re.compile(r'style="(?:left|--x):[^"]*"')  # of what the report lays over a figure, in % of its size
TOLD = re.compile(r'\b(?:aria-label|title)="[^"]*"')


def why(name: str, given: bytes, made: bytes) -> str | None:
    """Return what of a given file the made one, which the scores gave, contradicts; None where only digits differ."""
    if name.endswith(".csv"):
        return _table(given, made)
    if name.endswith(".png"):
        return _image(given, made)
    return _text(given, made)


def _table(given: bytes, made: bytes) -> str | None:
    one, other = ([*csv.reader(io.StringIO(data.decode("utf-8", "replace")))] for data in (given, made))
    if not one or one[0] != other[0]:
        return "other columns than the scores give"
    if len(one) != len(other):
        return f"{len(one) - 1} rows, the scores give {len(other) - 1}"
    for number, (row, expected) in enumerate(zip(one[1:], other[1:], strict=True), 2):
        for column, left, right in zip_longest(one[0], row, expected):
            if left != right and not _close(left, right, DIGITS):
                return f"line {number}, {column}: {left!r:.40}, the scores give {right!r:.40}"
    return None


def _close(left: str | None, right: str | None, within: float) -> bool:
    try:
        return abs(float(left) - float(right)) <= within
    except (TypeError, ValueError):
        return False


def _text(given: bytes, made: bytes) -> str | None:
    """Compare two texts; a number may differ by one in the last of its decimals, one of an SVG's shapes by STROKE."""
    one, other = (data.decode("utf-8", "replace") for data in (given, made))
    words, expected = (NUMBER.split(text) for text in (one, other))
    for left, right in zip_longest(words, expected):
        if left != right:
            return f"{_place(left, right)}"
    for left, (right, within) in zip(NUMBER.findall(one), _numbers(other), strict=True):
        if left != right and not _close(left, right, within):
            return f"{left}, the scores give {right}"
    return None


def _numbers(text: str) -> Iterator[tuple[str, float]]:
    """Yield each number of a text with what it may differ by. What an SVG says in words counts as text."""
    drawn = bytearray(len(text))
    for place in PLACE.finditer(text):
        drawn[slice(*place.span())] = b"\1" * len(place[0])
    for svg in SVG.finditer(text):
        for tag in TAG.finditer(text, *svg.span()):
            drawn[slice(*tag.span())] = b"\1" * len(tag[0])
            for told in TOLD.finditer(text, *tag.span()):
                drawn[slice(*told.span())] = bytes(len(told[0]))
    for found in NUMBER.finditer(text):
        decimals = DECIMALS.fullmatch(found[0])
        last = 1.01 * 10.0 ** -len(decimals[1]) if decimals else 0
        yield found[0], STROKE if drawn[found.start()] else last


def _place(left: str | None, right: str | None) -> str:
    """Return the first words at which two texts part."""
    left, right = left or "", right or ""
    at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    start = max(at - 20, 0)
    return f"{left[start : at + 20]!r}, the scores give {right[start : at + 20]!r}"


def _image(given: bytes, made: bytes) -> str | None:
    from matplotlib.image import imread

    if given[:8] != made[:8] or given[16:24] != made[16:24]:
        return "an image of another size or kind than the scores give"
    try:
        one, other = (np.asarray(imread(io.BytesIO(data), "png"), float) for data in (given, made))
    except Exception as error:  # whatever a garbled image makes the decoder raise
        return f"cannot be read as an image: {str(error)[:60]}"
    if one.shape != other.shape:
        return "an image of another kind than the scores give"
    share = float((np.abs(one - other) > LEVEL / 255).mean())
    return f"{100 * share:.1f} % of the image is not what the scores give" if share > SHARE else None


def off_lock() -> list[str]:
    """Return which packages here are not those of the lock, as `numpy 2.0 instead of 2.4`."""
    found = []
    for line in (places.SHIPPED / "requirements-analysis.lock").read_text(encoding="utf-8").splitlines():
        locked = re.match(r"([A-Za-z0-9_.-]+)==([^ ;\\]+)", line)
        try:
            if locked and (here := importlib.metadata.version(locked[1])) != locked[2]:
                found.append(f"{locked[1]} {here} instead of {locked[2]}")
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or of Snakemake, which draws nothing
    return found


def beside(root: Path, index: Index) -> dict[str, str]:
    """Return {name: what is wrong} of the crate and licences that are not what the program writes for these.

    They repeat what the scores, specs and manifests say. Raises UserError where these cannot be read.
    """
    given, results = root / "given", root / "results" / index.study
    manifests = [strict_json(path.read_bytes(), str(path)) for path in sorted(results.glob("manifests/*.json"))]
    commits = sorted({m["git_commit"] + "+" * bool(m.get("git_dirty")) for m in manifests if m.get("git_commit")})
    ended = [documents.moment(m["ended"]) for m in manifests if m.get("ended")]
    specs = [read_json(path) for path in sorted(results.glob("specs/*.json"))]
    expected = {"licences.tsv": licences.table(specs), "LICENSE": (places.SHIPPED / "LICENSE").read_text("utf-8")}
    if ended and CRATE in index.files:
        date = max(ended).strftime("%Y-%m-%dT%H:%M:%S+00:00")
        files = {name: entry for name, entry in index.files.items() if name != CRATE}
        expected[CRATE] = crate.metadata(replace(index, files=files), date, commits)
    found = {}
    for name, text in expected.items():
        path = given / name
        if path.is_file() and (said := path.read_bytes()) != text.encode():
            how = _text(said, text.encode()) or "other numbers, the scores give others"
            found[name] = how.replace("the scores give", "the program writes")
    return found


def same_code(index: Index) -> bool:
    """Return whether the bundle says that today's code made everything in it that is made from scores."""
    codes = {name: index.files[name].code for name in index.below(*DERIVED)}
    now = {name: contents.current(name, index.study) for name in codes}
    return all(now[name] is None or code in (None, now[name].code) for name, code in codes.items())


def stamps(given: Path, index: Index) -> str | None:
    """Return which file's checksum the crate contradicts, whichever code wrote it; None where none."""
    if not (given / CRATE).is_file():
        return None
    try:
        graph = json.loads((given / CRATE).read_bytes())["@graph"]
        said = {one["@id"]: one.get("sha256") for one in graph if isinstance(one.get("@id"), str)}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{given / CRATE}: not a crate's metadata") from None
    return next((name for name, one in index.files.items() if said.get(name) not in (None, one.sha256)), None)
