"""`python -m rtt bundle` packs a finished study into one zip, the same bytes every time (docs/bundle.md)."""

import argparse
import hashlib
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from rtt import places
from rtt.bundle import compacting, contents, crate, documents, licences, opening, rebuild
from rtt.bundle.layout import CRATE, INDEX, LEFT_OUT, strict_json
from rtt.files import atomic_path, disk_errors, new_folder, read_json, write_json, write_text
from rtt.stats import dictionary

# Messages about these defects quote no text of the dataset.
NO_TEXT = ("letter_prior", "missing_rows")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
README = """# Study {study}

This bundle holds every score of the study, and the {made} made from them. It holds no weights{texts}.

To draw everything again and compare it with what is here, in a clone of the project:

    make figures ARTIFACTS=<this file>

What every column of the tables means: `TABLES.md`.
{page}Licences: `LICENSE` for the code and the results, `licences.tsv` for the data and models from elsewhere.
The code that made the scores: {commits}.
"""
PAGE = "`results/{study}/report.html` was written elsewhere; open the one that you rebuild.\n"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `bundle`."""
    parser.add_argument("--results", required=True, type=Path, help="results folder of a finished study")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the zip (default: %(default)s)")
    parser.add_argument(
        "--texts", action="store_true", help="add the facts' texts, which of some datasets should not spread"
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="answers in place of scores, and the sha256 of what is large in place of it: some hundredth of the size",
    )


def run(args: argparse.Namespace) -> int:
    """Write the bundle; print its path and what is in it."""
    path = write(args.results, args.out, args.texts, args.compact)
    index = opening.look(path).index
    names = [*index.files, *index.left_out]
    parts = [f"{len(index.below('evals'))} evaluations{' (answers alone)' * bool(index.left_out)}"]
    for folder, what in (("tables", "table"), ("figures", "figure")):
        n = len({Path(name).stem for name in names if name.startswith(f"results/{index.study}/{folder}/")})
        parts += [f"{n} {what}{'s' * (n != 1)}"] * bool(n)
    parts += ["the report"] * index.shown + ["the facts' texts"] * index.texts
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; study {index.study}: {', '.join(parts)}; no weights")
    print(f"whoever has it draws all of it again: make figures ARTIFACTS={path.name}")
    return 0


def write(results: str | Path, out: str | Path, texts: bool = False, compact: bool = False) -> Path:
    """Write `<study>-<hash>.zip` below `out` and return its path; the same results give the same bytes.

    With `compact`, and where the results are compact already, evaluations are compact (`rtt.scoring.compact`), and of
    what is made of them and large the bundle holds only the sha256.

    Everything derived is made again on the way, so that a bundle holds nothing that its scores do not give. Raises
    UserError where the study is not finished, or where today's code makes other tables or figures from its scores.
    """
    results, out = Path(results), Path(out)
    found = contents.collect(results, texts, derived=False)
    study = found.study
    with disk_errors(out), new_folder(out), tempfile.TemporaryDirectory(dir=out, prefix=".part-") as part:
        root = Path(part)
        found.link(root)
        place = root / "results" / study
        if not texts:
            for path in place.glob("data/*/audit.json"):
                write_json(path, _without_texts(read_json(path)))
        found.compact = compact or any("/questions/" in name for name in found.paths)
        if found.compact:
            compacting.compacted(place, contents.stems(contents.read_runs(place), "evals"))
        documents.check(place)
        rebuild.rebuild(root, study, found.shown)
        rebuild.check_current(results, root, study, found.shown)
        manifests = [strict_json(path.read_bytes(), str(path)) for path in sorted(place.glob("manifests/*.json"))]
        commits = sorted({m["git_commit"] + "+" * bool(m.get("git_dirty")) for m in manifests if m.get("git_commit")})
        _beside(root, found, commits)
        found.paths = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        found.made |= {name: now for name in found.paths if (now := contents.current(name, study))}
        if found.compact:  # a crate describes each file, and most of these lie in members with others
            start = f"results/{study}/"
            found.left_out = [name for name in found.paths if LEFT_OUT.fullmatch(name.removeprefix(start))]
        else:
            write_text(root / CRATE, crate.metadata(contents.index(found), _date(results, manifests), commits))
            found.paths[CRATE] = root / CRATE
        index = contents.index(found)
        data = contents.written(index)
        target = out / f"{study}-{hashlib.sha256(data).hexdigest()[:10]}.zip"
        members = index.members() | {INDEX: [INDEX]}
        with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for member in sorted(members):
                info = zipfile.ZipInfo(member, EPOCH)
                info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                content = (
                    data if member == INDEX else b"".join(found.paths[one].read_bytes() for one in members[member])
                )
                archive.writestr(info, content, compresslevel=9 if found.compact else None)
    return target


def _without_texts(audit: dict) -> dict:
    """Return an audit without the messages that quote the dataset; the defects' places and kinds stay."""
    details = [
        one if one["kind"] in NO_TEXT else {**one, "message": "text left out of this bundle"}
        for one in audit["details"]
    ]
    return {**audit, "details": details}


def _beside(root: Path, found: contents.Contents, commits: list[str]) -> None:
    """Write what stands beside the results: the workflow, licences, a README, what the tables' columns mean."""
    (root / "workflow/rules").mkdir(parents=True)
    shutil.copyfile(places.SHIPPED / "Snakefile", root / "workflow/Snakefile")
    for path in sorted((places.SHIPPED / "rules").glob("*.smk")):
        shutil.copyfile(path, root / "workflow/rules" / path.name)
    shutil.copyfile(places.SHIPPED / "LICENSE", root / "LICENSE")
    specs = [read_json(path) for path in sorted((root / "results" / found.study / "specs").glob("*.json"))]
    write_text(root / "licences.tsv", licences.table(specs))
    texts = ", but the facts' texts" if found.texts else " and no texts of the datasets"
    made, page = ("tables, figures and report", PAGE.format(study=found.study)) if found.shown else ("tables", "")
    known = ", ".join(commits) or "not known, since no manifest names it"
    text = README.format(study=found.study, texts=texts, commits=known, made=made, page=page)
    write_text(root / "README.md", text)
    write_text(root / "TABLES.md", dictionary.page(f"Tables of the study {found.study}"))


def _date(results: Path, manifests: list[dict]) -> str:
    """Return when the newest run ended (ISO 8601, UTC): from the manifests, else from the times of their files."""
    times = [documents.moment(m["ended"]) for m in manifests if m.get("ended")]
    if not times:
        paths = [*results.glob("manifests/*.json")] or [results]
        times = [datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in paths]
    return max(times).strftime("%Y-%m-%dT%H:%M:%S+00:00")
