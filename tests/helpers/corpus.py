"""The corpus of bad inputs (tests/corpus/*.yaml): a good base folder, what each entry changes in it, and what is said.

A file of entries has `command`, `file` (what `set`, `drop` and `text` change) and `cases`. A case has an `id`, changes,
`says`, the first line of the message, in which `...` stands for anything, and `code` (1 where it is left out). With
`how: process` it runs in a process of its own, with `how: snakemake` the command's words go to Snakemake; `environment`
{variable: value} is the command's.

Changes: `set` {dotted key: value}, `drop` [dotted key] and `numbers` {dotted key: n}, 1 to n, in a YAML or JSON file;
`text`, its whole content; `bytes`, the same as Latin-1; `many` [before, unit, times, after]; `line` {number from 1:
text}; `append`; `swap` [old, new]; `copies` {key.name: n}, so many more of the same in a JSON file; `in` another file
than `file`; `remove` [paths]; `folder` [paths]; `link` {path: target}; `pipe` [paths]; `copy` {path: from}; `also`
[further changes]; `reindex`, the index of the folder `bundle` is written anew.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import signal
import zipfile
from pathlib import Path
from unittest import mock
from zlib import crc32

import yaml
from places import ROOT

FOLDER = ROOT / "tests/corpus"
CPU_SECONDS, SECONDS = 5, 120  # of processor time; on the clock, for what waits
PEOPLE = {"splits": 2, "facts_per_split": 8, "retain_train": 8, "retain_held_out": 8, "first_names": 8, "last_names": 8}
OWN = """
study: own
model: {name: own_original, path: own/original}
data:
  datasets:
    birth_years: {folder: own/data/birth_years_a}
    never_seen: {folder: own/data/birth_years_b}
    cities: {folder: own/data/cities}
tasks:
  - dataset: birth_years
    arm: pretrained
    control: never_seen
    retain: {dataset: cities, splits: [train]}
    retain_eval: {dataset: cities, splits: [held_out]}
external_models: {mine: own/mine}
methods:
  GD: {learning_rate: 1.0e-3, batch_size: 8, points: [2, 4]}
retain_budgets: [0.1, 1.0]
attacks:
  RTT: {learning_rates: [1.0e-3], epochs: 1, batch_size: 8}
"""


def cases() -> list[dict]:
    """Return every entry, with its group and the group's defaults."""
    found = []
    for path in sorted(FOLDER.glob("*.yaml")):
        group = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = {key: value for key, value in group.items() if key != "cases"} | {"group": path.stem, "code": 1}
        found += [defaults | case for case in group["cases"]]
    return found


def in_short_run(case: dict) -> bool:
    """Say whether `make test` runs this entry: about a tenth, by the entries' names."""
    return crc32(f"{case['group']}/{case['id']}".encode()) % 10 == 0


def make_base(folder: Path) -> Path:
    """Write the good base: a miniature's study, a study of a model of one's own, its files, and finished results."""
    import tiny
    from bundle_study import BUNDLE
    from rtt.data.build import build_facts
    from rtt.data.facts import write_facts
    from rtt.files import write_json

    folder.mkdir(parents=True)
    for name in ("birth_years_a", "birth_years_b", "cities"):
        tiny.write_raw(folder / "own/data" / name, name, 0, PEOPLE)
    for seed, name in enumerate(("original", "mine")):
        tiny.save_pretrained(tiny.model(seed), tiny.tokenizer(), folder / "own" / name)
    (folder / "own.yaml").write_text(OWN)
    shutil.copy(ROOT / "config/smoke.yaml", folder / "mini.yaml")
    shutil.copytree(folder / "own/data/birth_years_a", folder / "raw")
    write_facts(folder / "facts.jsonl", build_facts(folder / "raw", "d", None, {}, 0)[0])
    shutil.copy(folder / "raw/split_0.jsonl", folder / "mcq.jsonl")
    shutil.copy(ROOT / "data/sources.tsv", folder / "sources.tsv")
    (folder / "profile").mkdir()
    shutil.copy(ROOT / "profiles/slurm/config.yaml", folder / "profile")
    (folder / "profile/site.yaml").write_text("account: none\nmax_hours: 24\n")
    (folder / "tiny.yaml").write_text("name: tiny\npath: own/original\n")
    raw = {"birthdays": None, "dataset": "birth_years_a", "files": None, "kind": "raw", "people": PEOPLE, "seed": 0}
    write_json(folder / "raw.json", raw)
    with zipfile.ZipFile(BUNDLE) as archive:
        archive.extractall(folder / "bundle")
    shutil.copytree(folder / "bundle/results", folder / "results")
    return folder


# Changes


def change(folder: Path, case: dict) -> None:
    """Change the base in `folder` as a case says."""
    path = folder / case.get("in", case.get("file", ""))
    if "*" in str(path):
        path = sorted(folder.glob(str(path.relative_to(folder))))[0]
    for gone in case.get("remove", ()):
        place = folder / gone
        shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
    for made in case.get("folder", ()):
        (folder / made).mkdir(parents=True)
    for made, source in case.get("copy", {}).items():
        (folder / made).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (folder / source).is_dir() else shutil.copy
        copy(folder / source, folder / made)
    for made, target in case.get("link", {}).items():
        (folder / made).symlink_to(target)
    for made in case.get("pipe", ()):
        os.mkfifo(folder / made)
    for key, n in case.get("copies", {}).items():
        document = json.loads(path.read_text())
        first, name = key.split(".")
        document[first] |= {f"{name}_{i}": document[first][name] for i in range(n)}
        path.write_text(json.dumps(document))
    if {"set", "drop", "numbers"} & case.keys():
        numbers = {key: list(range(1, n + 1)) for key, n in case.get("numbers", {}).items()}
        _edit(path, case.get("set", {}) | numbers, case.get("drop", ()))
    for key in ("text", "bytes"):
        if key in case:
            path.write_bytes(case[key].encode("latin-1" if key == "bytes" else "utf-8"))
    if "many" in case:
        before, unit, times, after = case["many"]
        path.write_text(before + unit * times + after)
    if "line" in case:
        lines = path.read_text().split("\n")
        for number, text in case["line"].items():
            lines[int(number) - 1] = text
        path.write_text("\n".join(lines))
    if "append" in case:
        path.write_text(path.read_text() + case["append"])
    if "swap" in case:
        old, new = case["swap"]
        assert old in path.read_text(), f"{path} does not hold {old!r}"
        path.write_text(path.read_text().replace(old, new, 1))
    for more in case.get("also", ()):
        change(folder, more)
    if case.get("reindex"):
        _reindex(folder / "bundle")


def _edit(path: Path, values: dict, gone: list) -> None:
    text = path.read_text()
    document = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    for key, value in [*values.items(), *((key, KeyError) for key in gone)]:
        place, parts = document, [part.replace("\\", ".") for part in str(key).replace("\\.", "\\").split(".")]
        for part in parts[:-1]:
            place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
        last = int(parts[-1]) if isinstance(place, list) else parts[-1]
        if value is KeyError:
            del place[last]
        else:
            place[last] = value
    path.write_text(json.dumps(document) if path.suffix == ".json" else yaml.safe_dump(document, sort_keys=False))


def _reindex(bundle: Path) -> None:
    index = json.loads((bundle / "bundle.json").read_text())
    old = {"step": None, "code": None, "plugin": None}
    found = {}
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle).as_posix()
        if path.is_file() and name != "bundle.json":
            data = path.read_bytes()
            sizes = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            found[name] = {**index["files"].get(name, old), **sizes}
    (bundle / "bundle.json").write_text(json.dumps(index | {"files": found}))


# Running


def tree(folder: Path) -> dict[str, bytes | str]:
    """Return every file below a folder with its content, links with their targets, and other things with their kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = "folder" if path.is_dir() else "other"
    return found


class TooSlow(BaseException):
    """An entry took longer than its limit."""


@contextlib.contextmanager
def limit():
    """Stop what takes more than CPU_SECONDS of this process, or SECONDS on the clock."""

    def stop(number, frame):
        raise TooSlow(f"more than {CPU_SECONDS} s of processor time, or {SECONDS} s")

    old = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in old.items():
            signal.signal(number, handler)


def words(command) -> list[str]:
    """Return the arguments of a command, which is a list or a line."""
    return [str(word) for word in command] if isinstance(command, list) else command.split()


def call(command, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command in this process and this folder; return (exit code, standard error)."""
    from rtt.__main__ import main

    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment or {}),
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        limit(),
    ):
        try:
            code = main(words(command))
        except SystemExit as ended:
            code = ended.code
    return code, said.getvalue()


def first_line(said: str) -> str:
    """Return the first line after `error: `, with the next one if it only announces that."""
    said = said.partition("error: ")[2]
    first, _, rest = said.partition("\n")
    return first + " " + rest.strip().split("\n")[0].strip() if first.endswith(":") else first


def fits(says: str, line: str) -> bool:
    """Say whether a line is as `says` has it, in which `...` stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, says.split("..."))), line) is not None


def counts() -> dict[str, int]:
    """Return {group: number of entries}."""
    found: dict[str, int] = {}
    for case in cases():
        found[case["group"]] = found.get(case["group"], 0) + 1
    return found


if __name__ == "__main__":
    every = counts()
    for name, number in every.items():
        print(f"{name:20} {number:4}")
    print(f"{'all':20} {sum(every.values()):4}, of which make test runs {sum(map(in_short_run, cases()))}")
