"""`python -m rtt bundle`: a finished study as one zip, the same bytes every time (docs/bundle.md)."""

import argparse
import hashlib
import shutil
import tempfile
import zipfile
from datetime import UTC, datetime
from pathlib import Path

from rtt.bundle import contents, crate, documents, rebuild
from rtt.bundle.layout import CRATE, INDEX, strict_json
from rtt.codeversion import PACKAGE
from rtt.files import atomic_path, canonical_json, disk_errors, read_json, write_json, write_text
from rtt.sources import TABLE

REPOSITORY = PACKAGE.parents[1]
# What an audit says of these defects quotes no text of the dataset.
NO_TEXT = ("letter_prior", "missing_rows")
EPOCH = (1980, 1, 1, 0, 0, 0)  # zip knows nothing earlier
README = """# Study {study}

Every score of the study, and the tables, figures and report made of them. No weights{texts}.

To draw everything again and compare it with what is here, in a clone of the project:

    make figures ARTIFACTS=<this file>

`results/{study}/report.html` is a page that another program wrote: the one that you rebuild is yours.
Licences: `LICENSE` for the code and the results, `licences.tsv` for the data that the study took from elsewhere.
The code that made the scores: {commits}.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `bundle`."""
    parser.add_argument("--results", required=True, type=Path, help="results folder of a finished study")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the zip (default: %(default)s)")
    parser.add_argument("--texts", action="store_true", help="with the facts' texts; some datasets should not spread")


def run(args: argparse.Namespace) -> int:
    """Write the bundle."""
    path = write(args.results, args.out, args.texts)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


def write(results: str | Path, out: str | Path, texts: bool = False) -> Path:
    """Write `<study>-<hash>.zip` below `out` and return its path; the same results give the same bytes.

    What is derived is made again on the way, so that a bundle holds nothing that its scores do not give. Raises
    UserError where the study is not finished, or its tables and figures are not what this code makes of its scores.
    """
    results, out = Path(results), Path(out)
    found = contents.collect(results, texts, derived=False)
    study = found.study
    out.mkdir(parents=True, exist_ok=True)
    with disk_errors(out), tempfile.TemporaryDirectory(dir=out, prefix=".part-") as part:
        root = Path(part)
        found.copy(root, link=True)
        place = root / "results" / study
        if not texts:
            for path in place.glob("data/*/audit.json"):
                write_json(path, _without_texts(read_json(path)))
        documents.check(place)
        rebuild.rebuild(root, study, found.shown)
        rebuild.check_current(results, root, study, found.shown)
        manifests = [strict_json(path.read_bytes(), str(path)) for path in sorted(place.glob("manifests/*.json"))]
        commits = sorted({m["git_commit"] + "+" * bool(m.get("git_dirty")) for m in manifests if m.get("git_commit")})
        _beside(root, found, commits)
        found.paths = {p.relative_to(root).as_posix(): p for p in root.rglob("*") if p.is_file()}
        found.made |= {name: now for name in found.paths if (now := contents.current(name, study))}
        index = contents.index(found)
        claim = f"Recovery of unlearned facts by retraining on T: {len(index.below('evals'))} evaluations, the tables, "
        claim += "figures and report made of them. Redraw: make figures ARTIFACTS=<this file>."
        text = crate.metadata(study, index.files, _date(results, manifests), commits, claim)
        write_text(root / CRATE, text)
        found.paths[CRATE] = root / CRATE
        data = (canonical_json(contents.as_json(contents.index(found))) + "\n").encode()
        target = out / f"{study}-{hashlib.sha256(data).hexdigest()[:10]}.zip"
        with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name in sorted([*found.paths, INDEX]):
                info = zipfile.ZipInfo(name, EPOCH)
                info.compress_type, info.create_system, info.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
                archive.writestr(info, data if name == INDEX else found.paths[name].read_bytes())
    return target


def _without_texts(audit: dict) -> dict:
    """An audit whose details quote nothing of the dataset: places and kinds stay."""
    details = [
        one if one["kind"] in NO_TEXT else {**one, "message": "text left out of this bundle"}
        for one in audit["details"]
    ]
    return {**audit, "details": details}


def _beside(root: Path, found: contents.Contents, commits: list[str]) -> None:
    """What stands beside the results: the workflow, licences, a page for people."""
    (root / "workflow/rules").mkdir(parents=True)
    shutil.copyfile(REPOSITORY / "Snakefile", root / "workflow/Snakefile")
    for path in sorted((REPOSITORY / "rules").glob("*.smk")):
        shutil.copyfile(path, root / "workflow/rules" / path.name)
    shutil.copyfile(REPOSITORY / "LICENSE", root / "LICENSE")
    header, *rows = TABLE.read_text(encoding="utf-8").splitlines()
    columns = [header.split("\t").index(name) for name in ("group", "licence", "url")]
    plan = (root / "results" / found.study / "plan.json").read_text(encoding="utf-8")
    used = [[row.split("\t")[i] for i in columns] for row in rows]
    lines = sorted({"\t".join(row) for row in used if f'"{row[0]}"' in plan})
    write_text(root / "licences.tsv", "\n".join(["group\tlicence\turl", *lines]) + "\n")
    texts = ", but the facts' texts" if found.texts else ", no texts of the datasets"
    write_text(
        root / "README.md",
        README.format(study=found.study, texts=texts, commits=", ".join(commits) or "not known (no manifest says it)"),
    )


def _date(results: Path, manifests: list[dict]) -> str:
    """When the newest run ended: as manifests say, else as their files' times do; ISO 8601, UTC."""
    ended = [str(m["ended"]) for m in manifests if m.get("ended")]
    if ended:
        return max(ended)
    times = [path.stat().st_mtime for path in results.glob("manifests/*.json")] or [results.stat().st_mtime]
    return datetime.fromtimestamp(max(times), UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")
