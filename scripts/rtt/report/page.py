"""`python -m rtt report`: tables, audits and manifests -> one self-contained page that says what they show."""

import argparse
import shlex
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from rtt import __version__
from rtt.errors import UserError
from rtt.figures.draw import FIGURES
from rtt.figures.style import PROBES, number, percent, value_of
from rtt.figures.view import load, make_view
from rtt.files import sha256, write_text
from rtt.report import changed, conclusions, cost, inputs, published, recovered, strength
from rtt.report.images import image

# Sections by id (templates/<id>.html.j2), in the page's order.
SECTIONS = {
    "claim": "Claim",
    "figures": "Figures",
    "published": "The paper's figures",
    "recovery": "Recovery",
    "formats": "Formats",
    "faithful": "Faithful switches",
    "sensitivity": "Sensitivity",
    "seeds": "Seeds and arms",
    "caveats": "Caveats",
    "audit": "Audit",
    "compute": "Compute",
    "provenance": "Provenance",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", required=True, type=Path, help="folder of a study: tables/, data/, evals/")
    parser.add_argument("--study-config", required=True, type=Path, help="the study file, shown under provenance")
    parser.add_argument("--out", required=True, type=Path, help="report.html")


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    write_text(args.out, page(args.results, args.study_config))
    print(args.out)
    return 0


def page(results: str | Path, study_config: str | Path) -> str:
    """Return the page: the same text for the same files. Raises UserError when the tables cannot be read."""
    results, study_config = Path(results), Path(study_config)
    recovery, accuracy = load(results / "tables")
    view = make_view(recovery, accuracy)
    panels = conclusions.main_panels(view)
    study, manifests = inputs.read_study(results), inputs.read_manifests(results)
    folder, config = shlex.quote(results.as_posix()), shlex.quote(study_config.as_posix())
    tables = shlex.quote(f"{results.as_posix()}/tables")
    edges = strength.edges(view)
    judged = [(panel, conclusions.judge(view, panel)) for panel in panels]
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            sections=list(SECTIONS.items()),
            name=results.resolve().name,
            folder=folder,
            study_config=config,
            config_text=_text(study_config),
            version=__version__,
            view=view,
            several=len(view.seeds) > 1,
            claims=[conclusions.claim(view, panel) for panel in panels],
            main_arm=panels[0].arm == conclusions.MAIN_ARM,
            main_seed=conclusions.main_seed(view),
            judged=[(panel, rows, conclusions.criterion_sentence(rows)) for panel, rows in judged],
            images=[image(name, view, tables) for name in FIGURES],
            published=published,
            beside=published.beside(view),
            controls=published.controls(view),
            our_budgets=published.budgets(view),
            hiding=published.hiding(view, study),
            others=published.others(view),
            recovery_tables=recovered.recovery_tables(recovery, accuracy),
            budgets=recovered.by_budget(view),
            by_probe=recovered.by_probe(view),
            effects=changed.effects(results / "tables" / "variants.csv", view, study),
            faithful=[str(name) for name in study.get("faithful") or []],
            attacked=strength.attacked_share(view),
            trajectories=strength.trajectories(view, results),
            rates=strength.rates(view),
            edges=edges,
            t_sizes=changed.t_sizes(view, study),
            t_questions=changed.t_questions(view),
            over_seeds=conclusions.over_seeds(view),
            over_seeds_sentence=conclusions.over_seeds_sentence(view),
            contrasts=recovered.contrast_rows(results / "tables" / "contrasts.csv", view),
            audits=inputs.read_audits(results),
            caveats=conclusions.caveats(view, recovery, accuracy) + edges,
            ledger=cost.ledger(manifests),
            energy=cost.energy(manifests),
            provenance=cost.provenance(manifests),
            commit=cost.commit(manifests),
            report_command=f"python -m rtt report --results {folder} --study-config {config} --out report.html",
            tables=[(path.name, sha256(path)) for path in sorted((results / "tables").glob("*.csv"))],
        )
    )


def environment() -> Environment:
    """Return the templates' environment. What comes from a file is escaped."""
    found = Environment(
        loader=PackageLoader("rtt", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"number": number, "percent": percent}
    found.globals |= {"value_of": value_of, "probes": PROBES, "sentence": sentence, "span": cost.span}
    return found


def sentence(text: str) -> str:
    """Return the text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such study file") from None
