"""The format of a bundle: the names it may hold, its limits, and the one strict way of reading its JSON.

A bundle is one zip (docs/bundle.md). `bundle.json` names every other file with its bytes and sha256:

    {"format": FORMAT, "version": VERSION, "study": "demo", "texts": false, "shown": true,
     "files": {"results/demo/evals/<stem>.json": {"bytes": 1, "sha256": "...", "step": "attack", "code": "...",
                                                   "plugin": "RTT"}}}

`step`, `code` and `plugin` name the step that wrote a file, the hash of its code and the method or attack that it ran
(`rtt.code_version.Maker`). They are null where nothing tells, and `plugin` where there is none.

A compact bundle has version COMPACT. The files of each folder of JOINED, which are many and alike, lie one after the
other in one member of the zip, `results/<study>/<folder>.joined`, in the order of their names; `files` says how long
each is. What is made of the scores and is large stays out: `left_out` has its bytes and sha256, in the form of `files`.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from rtt.code_version import Maker
from rtt.errors import CONTROL, UserError
from rtt.files import canonical_json

FORMAT = "unlearning-rtt bundle"
VERSION = 2  # bundles of version 1 were made before the first release; nothing reads them any more
COMPACT = 3
INDEX, CRATE = "bundle.json", "ro-crate-metadata.json"
STUDY = re.compile(r"[a-z][a-z0-9_-]{0,99}")
PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,199}")
SHA256 = re.compile(r"[0-9a-f]{64}")
CODE = re.compile(r"[0-9a-f]{10}")

# What stands below results/<study>/: what figures are made of, and what is made of it.
SOURCES = ("specs", "evals", "questions", "point_choices", "data", "manifests", "runs.json", "study.yaml")
JOINED = ("specs", "evals", "questions", "point_choices", "manifests")  # each folder one member of a compact bundle
LEFT_OUT = re.compile(r"tables/(accuracy|questions)\.csv|figures/.+\.png|report\.html")  # of a compact bundle
DERIVED = ("tables", "figures", "report.html")
BESIDE = (CRATE, "README.md", "TABLES.md", "LICENSE", "licences.tsv", "workflow")

# A hostile archive may fill no disk: a file, all files, and all files against the archive's own size.
MAX_FILES = 100_000
MAX_FILE = 1 << 30  # bytes
MAX_TOTAL = 64 << 30
SMALLEST, MAX_INDEX = 512, 4 << 20  # bytes of a file that lies joined, and of what bundle.json says of all of them
MAX_JOINED = 256 << 20  # of a member that holds a folder's files, and is read whole; ten seeds take 20 MB
MAX_DOWNLOAD = 4 << 30  # of an archive
# Bytes that need no excuse; beyond them at most RATIO times the archive. Whole bundles of ours unpack to 3 or 4 times.
FREE, RATIO = 4 << 20, 30
# JSON takes up to 30 times its bytes in memory, so what is read whole has a limit of its kind. The paper's study has a
# plan of 54 kB, specs of up to 16 kB and evaluations of about 20 MB.
SMALL = 1 << 20
LIMITS = {
    "runs.json": 16 << 20,
    "specs": 4 << 20,
    "point_choices": 16 << 20,
    "data": 16 << 20,
    "facts": 256 << 20,
    "evals": 384 << 20,
}
MAX_INT = 1 << 53  # what JSON's readers agree on
MAX_DEPTH = 64
# Canonical JSON writes the first half of CONTROL as these escapes.
ESCAPED = re.compile(r"(?<!\\)(?:\\\\)*\\[ubfr]")


@dataclass(frozen=True)
class Entry:
    """What bundle.json says of one file."""

    bytes: int
    sha256: str
    step: str | None = None
    code: str | None = None
    plugin: str | None = None

    @property
    def maker(self) -> Maker | None:
        """What made the file; None where nothing tells."""
        return Maker(self.step, self.code, self.plugin) if self.step and self.code else None


@dataclass(frozen=True)
class Index:
    """bundle.json."""

    version: int
    study: str
    texts: bool
    shown: bool  # the study has recovery, so figures and a report
    files: dict[str, Entry]
    left_out: dict[str, Entry] = field(default_factory=dict)  # of a compact bundle: made of the scores, not in it

    def below(self, *parts: str) -> list[str]:
        """Names of the files below `results/<study>/<part>/` of each part, or of that file."""
        starts = [f"results/{self.study}/{part}" for part in parts]
        return [name for name in self.files if any(name == one or name.startswith(f"{one}/") for one in starts)]

    def member(self, name: str) -> str:
        """Return the member of the archive in which a file lies: itself, but for joined ones."""
        head, _, rest = name.removeprefix(f"results/{self.study}/").partition("/")
        return f"results/{self.study}/{head}.joined" if self.version == COMPACT and rest and head in JOINED else name

    def members(self) -> dict[str, list[str]]:
        """Return {member of the archive: its files, in the order in which they lie there}."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.files):
            found.setdefault(self.member(name), []).append(name)
        return found

    @property
    def runs(self) -> dict[str, Maker]:
        """{run or dataset: its maker}, of every one whose manifest, point choice or audit says it."""
        found = {}
        for name in self.below("manifests", "point_choices", "data"):
            path, entry = PurePosixPath(name), self.files[name]
            if entry.maker:
                found[path.parent.name if path.stem == "audit" else path.stem] = entry.maker
        return found


def check_name(name: str, where: str) -> str:
    """Return `name` where it is a plain relative path of known characters. Raises UserError."""
    parts = name.split("/")
    if not all(PART.fullmatch(part) for part in parts) or len(parts) > 8:
        raise UserError(
            f"{where}: the name {name[:80]!r} is refused: expected a relative path of letters, digits and _ . + @ = -, "
            "no part beginning with a dot; this is no bundle that `snakemake bundle` wrote"
        )
    return name


def check_place(name: str, study: str, where: str) -> None:
    """Raise UserError where a file of this name has no place in a bundle of this study."""
    head, *rest = name.split("/")
    known = head in BESIDE and (not rest or head == "workflow")
    if head == "results":
        known = len(rest) > 1 and rest[0] == study and rest[1] in SOURCES + DERIVED
    if not known:
        raise UserError(f"{where}: {name[:80]!r} has no place in a bundle of study {study}; see docs/bundle.md")


def limit_of(name: str) -> int:
    """Return the most bytes that a file of this name in a bundle may have."""
    head, *rest = name.split("/")
    if name.endswith(".joined"):
        return MAX_JOINED
    if head == "results" and len(rest) > 1 and (name.endswith(".json") or rest[1] == "study.yaml"):
        return LIMITS.get(rest[1], SMALL)
    if name.endswith("/facts.jsonl"):
        return LIMITS["facts"]
    return MAX_FILE


def index_limit(sizes: Mapping[str, int]) -> int:
    """Return the most bytes of the bundle.json of an archive with these members: 1 KiB for each file, and 64 more.

    A name and a sha256 are far below that. A joined member holds a file for each `SMALLEST` bytes at most, and no more
    than `MAX_INDEX` is explained by such files.
    """
    joined = sum(size for name, size in sizes.items() if name.endswith(".joined")) // SMALLEST
    return (64 << 10) + (len(sizes) << 10) + min(joined << 10, MAX_INDEX)


def strict_json(data: bytes, where: str) -> Any:
    """Return a JSON document: finite numbers, integers below 2^53, no key twice, not too deep, and texts that can be
    written again and hold no control characters but newline and tab. Raises UserError that says `where`.
    """
    suspicious = re.search(rb"[0-9]{16}|[eE]\+?[0-9]{3}", data)  # Python code for each number is slow
    hooks = {"parse_int": _integer, "parse_float": _float} if suspicious else {}
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_constant, object_pairs_hook=_distinct, **hooks)
        _check_depth(found)
        text = canonical_json(found)
        text.encode()
    except RecursionError:
        raise UserError(f"{where}: nested too deep to be one of our files; get the bundle again") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and, of a lone surrogate, UnicodeEncodeError
        raise UserError(f"{where}: not a JSON file that this program reads: {str(error)[:160]}") from None
    if bad := CONTROL.search(text) or ESCAPED.search(text):
        raise UserError(f"{where}: a control character in a text: {text[max(0, bad.end() - 20) : bad.end() + 20]!r}")
    return found


def _check_depth(document: Any) -> None:
    inner = [[document]]
    for _ in range(MAX_DEPTH):
        values = (value for one in inner for value in (one.values() if isinstance(one, dict) else one))
        inner = [value for value in values if isinstance(value, (dict, list))]
        if not inner:
            return
    raise RecursionError


def strict_text(data: bytes, where: str) -> str:
    """Return a text in UTF-8 without control characters but newline and tab. Raises UserError that says `where`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: byte {error.start + 1} is not UTF-8; get the bundle again") from None
    if bad := CONTROL.search(text):
        raise UserError(f"{where}: a control character, {bad[0]!r}; get the bundle again")
    return text


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INT:
        raise ValueError(f"the number {text[:20]}… of {len(text)} digits is too large")
    return int(text)


def _float(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _distinct(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def read_index(data: bytes, where: str) -> Index:
    """Return the checked bundle.json. Raises UserError: another format, an unknown version, a wrong key or name."""
    found = strict_json(data, where)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise UserError(f"{where}: expected format {FORMAT!r}; this is no bundle")
    version = found.get("version")
    if type(version) is not int or version not in (VERSION, COMPACT):
        advice = "ask its author for one that today's program makes"
        if type(version) is int and version > COMPACT:
            advice = "it needs a newer program: `git pull`"
        reads = f"{VERSION} and {COMPACT}"
        raise UserError(f"{where}: version is {str(version)[:20]!r}, this program reads {reads}; {advice}")
    keys = {"format", "version", "study", "texts", "shown", "files", *(["left_out"] if version == COMPACT else [])}
    if set(found) != keys:
        raise UserError(f"{where}: keys {sorted(map(str, found))[:12]}, expected {sorted(keys)}")
    study, files = found["study"], found["files"]
    if not isinstance(study, str) or not STUDY.fullmatch(study):
        raise UserError(f"{where}: study is {str(study)[:40]!r}, expected a name such as demo")
    if type(found["texts"]) is not bool or type(found["shown"]) is not bool or not isinstance(files, dict):
        raise UserError(f"{where}: texts and shown are true or false, files an object")
    if not files or len(files) > MAX_FILES:
        raise UserError(f"{where}: {len(files)} files, expected 1 to {MAX_FILES}")
    left_out = found.get("left_out", {})
    if not isinstance(left_out, dict) or len(left_out) > MAX_FILES:
        raise UserError(f"{where}: left_out is an object of at most {MAX_FILES} files")
    entries, absent = (
        {name: _entry(name, one, study, where) for name, one in some.items()} for some in (files, left_out)
    )
    start = f"results/{study}/"
    if odd := [one for one in absent if one in entries or not LEFT_OUT.fullmatch(one.removeprefix(start))]:
        raise UserError(f"{where}: left_out names {odd[0][:80]}, which a compact bundle has; get the bundle again")
    folded = {name.lower() for name in entries}
    if len(folded) != len(entries):
        raise UserError(f"{where}: two names differ in upper and lower case alone, which some disks take for one")
    for name in entries:
        if any(str(parent).lower() in folded for parent in PurePosixPath(name).parents):
            raise UserError(f"{where}: {name[:80]} lies below a file")
    for name in ("runs.json", "study.yaml"):
        if f"results/{study}/{name}" not in entries:
            raise UserError(f"{where}: no results/{study}/{name}; get the whole bundle again")
    if sum(entry.bytes for entry in entries.values()) > MAX_TOTAL:
        raise UserError(f"{where}: more than {MAX_TOTAL >> 30} GiB of files")
    index = Index(version, study, found["texts"], found["shown"], entries, absent)
    for member, names in index.members().items():
        if sum(entries[name].bytes for name in names) > limit_of(member):
            raise UserError(f"{where}: {member[:80]} has more than {limit_of(member)} bytes")
    return index


def _entry(name: str, value: Any, study: str, where: str) -> Entry:
    check_name(name, where)
    check_place(name, study, where)
    keys = ("bytes", "sha256", "step", "code", "plugin")
    if not isinstance(value, dict) or set(value) != set(keys):
        raise UserError(f"{where}: files[{name[:80]!r}]: expected {', '.join(keys)}")
    size, digest, step, code, plugin = (value[key] for key in keys)
    if type(size) is not int or not 0 <= size <= limit_of(name):
        raise UserError(f"{where}: {name[:80]}: {str(size)[:20]} bytes, expected at most {limit_of(name)}")
    if not isinstance(digest, str) or not SHA256.fullmatch(digest):
        raise UserError(f"{where}: {name[:80]}: sha256 is {str(digest)[:80]!r}, expected 64 hex digits")
    for key, text in (("step", step), ("plugin", plugin)):
        if text is not None and (not isinstance(text, str) or not PART.fullmatch(text)):
            raise UserError(f"{where}: {name[:80]}: {key} is {str(text)[:40]!r}, expected a name or null")
    if code is not None and (not isinstance(code, str) or not CODE.fullmatch(code)):
        raise UserError(f"{where}: {name[:80]}: code is {str(code)[:40]!r}, expected 10 hex digits or null")
    return Entry(size, digest, step, code, plugin)
