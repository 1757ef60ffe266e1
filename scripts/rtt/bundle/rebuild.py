"""Make tables, figures and report again; `python -m rtt verify` says which of them equal those in the bundle."""

import argparse
import contextlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from rtt.bundle import compacting, contents, forged
from rtt.bundle.layout import BESIDE, CRATE, DERIVED, INDEX, Index, read_index
from rtt.errors import UserError, printable
from rtt.figures import render
from rtt.figures.tables import load
from rtt.figures.view import make_view
from rtt.files import atomic_path, sha256, write_text
from rtt.report import page as report
from rtt.report import reference
from rtt.stats import tables
from rtt.stats.variants import StudyRuns
from rtt.study.names import FIGURES

FORGED = "FORGED"
EQUAL, SUM, PIXELS, DIFFERS, ABSENT, LOST = (
    "equal, byte for byte",
    "equal, by its sha256",
    "equal, pixel for pixel",
    "differs",
    "not in the bundle",
    "not rebuilt",
)
# What the report of a results folder may hold beside that of a bundle, which is what is rebuilt.
BESIDES = "equal, but for "
REFERENCE, TEXTS = "the reference study's section", "the texts of the questions"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `verify`."""
    parser.add_argument("root", type=Path, help="folder that `rtt unpack` and the rebuilding steps wrote")
    parser.add_argument(
        "--full", type=Path, metavar="RESULTS", help="results folder with the scores from which a compact bundle came"
    )


def run(args: argparse.Namespace) -> int:
    """Print for every derived file whether it equals the one in the bundle."""
    path = args.root / "given" / INDEX
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the folder that `rtt unpack` wrote")
    index = read_index(path.read_bytes(), f"{path}")
    made = args.root / "results" / index.study
    given = args.root / "given" / "results" / index.study
    found = verdicts(given, made, index)
    odd = {name: forged.why(name, (given / name).read_bytes(), (made / name).read_bytes())
           if (given / name).is_file() else None
           for name, verdict in found.items() if verdict == DIFFERS}  # fmt: skip
    lies = judge(args.root, index, odd)
    for name, verdict in found.items():
        print(printable(f"{name:<24} {f'{FORGED}: {lies[name]}' if name in lies else verdict}"))
        if odd.get(name) and name not in lies:
            print(printable(f"{'':<24} {odd[name]}"))
    for name in sorted(lies.keys() - found.keys()):
        print(printable(f"{name:<24} {FORGED}: {lies[name]}"))
    same = sum(verdict in (EQUAL, SUM, PIXELS) or verdict.startswith(BESIDES) for verdict in found.values())
    print(f"{same} of {len(found)} equal the bundle's; rebuilt: {made}")
    if (made / "report.html").is_file():
        print(f"report: {made / 'report.html'}")
    if set(odd) - set(lies):
        print(f"possible reasons: {'; '.join(reasons(index)) or 'another environment than the locked one'}")
    if args.full is not None:
        n = compacting.check_full(made, args.full)
        print(f"{n} compact evaluations are what the full ones in {args.full} give")
    if lies:
        raise UserError(
            f"{args.root / 'given'}: {len(lies)} files are forged or damaged: {', '.join(sorted(lies))} cannot come "
            "from the bundle's scores; trust the rebuilt ones alone, and ask the authors"
        )
    return 0


def judge(root: Path, index: Index, odd: dict[str, str | None]) -> dict[str, str]:
    """Return {given file: what in it cannot come from the scores}. `odd`: derived files that differ, and how."""
    found = {}
    if (lie := forged.stamps(root / "given", index)) is not None:
        found[CRATE] = f"another sha256 of {lie} than it has"
    # A results folder, which has nothing beside its results, may hold tables of an earlier day: nobody packed it.
    if not forged.same_code(index) or not any(name.split("/")[0] in BESIDE for name in index.files):
        return found
    locked = not forged.off_lock()
    found |= {name: how for name, how in odd.items() if how and (locked or name.endswith(".csv"))}
    return forged.beside(root, index) | found


def reasons(index: Index) -> list[str]:
    """Return the known reasons why rebuilt files may differ."""
    files = index.files | index.left_out
    now = {name: contents.current(name, index.study) for name in files}
    steps = {now[name].step for name, one in files.items() if now[name] and one.code not in (None, now[name].code)}
    text = f"the bundle was made by other code or other locked packages: {', '.join(sorted(steps))}"
    return [text] * bool(steps) or [f"packages here: {one}" for one in forged.off_lock()[:5]]


def verdicts(given: Path, made: Path, index: Index) -> dict[str, str]:
    """Return {name below results/<study>/: whether the rebuilt file equals the given one}.

    Given files that nothing rebuilds are named, too.
    """
    found = {}
    names = [name for name, _ in contents.derived_files(index.shown)]
    sums = {name.removeprefix(f"results/{index.study}/"): one.sha256 for name, one in index.left_out.items()}
    there = sorted(path.relative_to(given).as_posix() for path in given.rglob("*") if path.is_file())
    for name in dict.fromkeys([*names, *(one for one in there if one.split("/")[0] in DERIVED)]):
        one, other = given / name, made / name
        if not other.is_file():
            found[name] = LOST
        elif not one.is_file():
            found[name] = ABSENT if name not in sums else SUM if sha256(other) == sums[name] else DIFFERS
        else:
            found[name] = same(one.read_bytes(), other.read_bytes())
            if found[name] == DIFFERS and name == "report.html":
                found[name] = _besides(one.read_bytes().decode(errors="replace"), given, made) or DIFFERS
    return found


def _besides(text: str, given: Path, made: Path) -> str | None:
    """Return the verdict on a report that is the rebuilt one's with more in it; None where it is another one.

    The report of a results folder shows the reference study, and the texts of the questions where the facts are given.
    made: a folder `root/results/<study>`.
    """
    with_reference, given = 'id="reference"' in text, given.absolute()
    for texts in (given, False) if any(given.glob("data/*/facts.jsonl")) else (False,):
        more = [REFERENCE] * with_reference + [TEXTS] * (texts is not False)
        with inside(made.parents[1]):
            results, other = Path(*made.parts[-2:]), reference.FOLDER if with_reference else None
            if more and text == report.page(results, results / "study.yaml", other, texts):
                return BESIDES + " and ".join(more)
    return None


def same(one: bytes, other: bytes) -> str:
    """Return whether two files are equal in their bytes or, of two PNGs, in their pixels."""
    if one == other:
        return EQUAL
    png = b"\x89PNG\r\n\x1a\n"
    # A hostile image may claim any size, so it is decoded only where it has the size of ours.
    if one[:8] == other[:8] == png and len(one) > 33 and one[16:24] == other[16:24]:
        with contextlib.suppress(ValueError, OSError, SyntaxError, struct.error, EOFError):
            if np.array_equal(imread(io.BytesIO(one), "png"), imread(io.BytesIO(other), "png")):
                return PIXELS
    return DIFFERS


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Make a folder the working directory for a while, since the report quotes the paths that it is given."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_tables(results: Path) -> None:
    """Write the tables of a study's results folder."""
    runs = StudyRuns.read(results / "runs.json")
    for name, table in tables.compute(runs, results / "evals", results / "point_choices").items():
        tables.write_table(results / "tables" / f"{name}.csv", table)


def rebuild(root: Path, study: str, shown: bool) -> None:
    """Make all derived files of `root/results/<study>/` again. Raises UserError where scores contradict each other."""
    with inside(root):
        results = Path("results", study)
        make_tables(results)
        if not shown:
            return
        view = make_view(*load(results / "tables"))
        for name in FIGURES:
            for kind, image in zip((".svg", ".png"), render(name, view, [".svg", ".png"]), strict=True):
                with atomic_path(results / "figures" / f"{name}{kind}") as temporary:
                    temporary.write_bytes(image)
        write_text(results / "report.html", report.page(results, results / "study.yaml"))


def check_current(results: Path, root: Path, study: str, shown: bool) -> None:
    """Raise UserError where tables or figures of a results folder are not what today's code makes from its scores."""
    names = [name for name, _ in contents.derived_files(shown) if name != "report.html"]  # its audits may be shortened
    for name in names:
        here, made = results / name, root / "results" / study / name
        if not here.is_file():
            raise UserError(f"{here}: no such file; {contents.FINISH}")
        if same(here.read_bytes(), made.read_bytes()) == DIFFERS:
            raise UserError(
                f"{here}: today's code makes another one from {results / 'evals'}, so other code or another "
                "environment made this; delete it, run the study again (only this file is redrawn), then bundle"
            )
