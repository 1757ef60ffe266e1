"""`python -m rtt report`: tables, audits and manifests -> one self-contained page that says what they show."""

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rtt import __version__, findings
from rtt.errors import UserError
from rtt.figures import render_told
from rtt.figures.draw import FIGURES
from rtt.figures.style import SCORINGS, dataset_title, number, percent, value_of
from rtt.figures.view import View, load, make_view
from rtt.figures.words import alternative, title
from rtt.files import read_json, sha256, write_text
from rtt.stats.variants import DEFAULT, ON_V
from rtt.tables import read_table

QUANTITIES = {
    "acc_rtt": "accuracy on V after RTT",
    "recovery": "recovery, ratio",
    "recovery_corrected": "floor-corrected recovery",
}
CAPTIONS = {
    "accuracy": "Accuracy on V with 95 % Wilson intervals. Open marks: unlearned, before RTT. Filled marks: after RTT.",
    "recovery": "What RTT brings back, as a share of what the original has after RTT, with 95 % bootstrap intervals.",
    "tradeoff": "Each unlearning run from the model before it (star) through its points; large open marks: selected.",
    "sensitivity": "Accuracy on V with 95 % intervals, where one thing at a time is chosen otherwise.",
    "curves": "Accuracy after each epoch of RTT, pooled over the V splits. Of these looks, one is chosen.",
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
    panels = findings.main_panels(view)
    manifests = read_manifests(results)
    environment = Environment(
        loader=PackageLoader("rtt", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    environment.globals |= {"value_of": value_of, "scorings": SCORINGS, "sentence": sentence}
    judged = [(panel, findings.judge(view, panel)) for panel in panels]
    return environment.get_template("report.html.j2").render(
        name=results.resolve().name,
        results=results.as_posix(),
        study_config=study_config.as_posix(),
        config_text=_text(study_config),
        version=__version__,
        view=view,
        claims=[findings.claim(view, panel) for panel in panels],
        main_arm=panels[0].arm == findings.MAIN_ARM,
        main_seed=findings.main_seed(view),
        judged=[(panel, rows, findings.criterion_sentence(rows)) for panel, rows in judged],
        figures=[figure(name, view) for name in FIGURES],
        recovery_tables=recovery_tables(recovery, accuracy),
        over_seeds=findings.over_seeds(view),
        over_seeds_sentence=findings.over_seeds_sentence(view),
        contrasts=contrast_rows(results / "tables" / "contrasts.csv", view),
        variants=variant_rows(results / "tables" / "variants.csv", view),
        audits=read_audits(results),
        caveats=findings.caveats(view, recovery, accuracy),
        ledger=ledger(manifests),
        provenance=provenance(manifests),
        tables=[(path.name, sha256(path)) for path in sorted((results / "tables").glob("*.csv"))],
    )


def sentence(text: str) -> str:
    """Return the text with a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def figure(name: str, view: View) -> dict[str, Any]:
    """Return a figure for the page: its name, title, alternative text, caption and inline SVG."""
    alt = alternative(name, view)
    svg = inline_svg(render_told(name, view)[0].decode(), name, alt)
    return {"name": name, "title": title(name, view), "alt": alt, "caption": CAPTIONS[name], "svg": svg}


def inline_svg(svg: str, prefix: str, alt: str) -> Markup:
    """Return an SVG file's root element for HTML: ids made unique by `prefix`, an image with an alternative text.

    Comments, metadata and the style element are left out; the style's two properties go to the root, where they cannot
    reach the page around it.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r"\n\s*\n+", "\n", svg)
    label = Markup('<svg role="img" aria-label="{}" style="stroke-linejoin:round;stroke-linecap:butt"').format(alt)
    return Markup(svg.replace("<svg", label, 1).strip())


def recovery_tables(recovery: pd.DataFrame, accuracy: pd.DataFrame) -> list[dict[str, Any]]:
    """Return one table per scoring and selection, the main scoring and nested first; each holds all budgets and seeds.

    Of the variants they show the default.
    """
    recovery = recovery[recovery["variant"] == DEFAULT]
    pairs = list(dict.fromkeys(recovery[["scoring", "selection"]].itertuples(index=False, name=None)))
    scorings = list(dict.fromkeys(recovery["scoring"]))
    pairs.sort(key=lambda pair: (scorings.index(pair[0]), pair[1] != "nested", pair))
    tables = []
    for scoring, selection in pairs:
        mask = (recovery["scoring"] == scoring) & (recovery["selection"] == selection)
        view = make_view(recovery, accuracy, selection, scoring, recovery.loc[mask, "retain_budget"].iloc[0])
        view.recovery = recovery[mask]
        rows = [
            (panel, row)
            for panel in view.panels
            for method in view.methods
            for _, row in view.of(panel, method).iterrows()
        ]
        tables.append(
            {
                "scoring": SCORINGS.get(scoring, scoring),
                "selection": selection,
                "rows": rows,
                "seeds": len(view.seeds) > 1,
                "untold": any(row["cannot_tell"] for _, row in rows),
                "budgets": recovery["retain_budget"].nunique() > 1,
            }
        )
    return tables


def contrast_rows(path: Path, view: View) -> dict[str, list[dict]] | None:
    """Return the view's contrasts, `arms` and `methods`, each row with its verdict in words; None without a file."""
    if not path.is_file():
        return None
    table = read_table(path)
    mask = np.isclose(table["retain_budget"].astype(float), view.budget) & (table["selection"] == view.selection)
    found: dict[str, list[dict]] = {"arms": [], "methods": []}
    for row in table[mask & (table["scoring"] == view.scoring)].to_dict("records"):
        row |= {f"{side}_name": row[side] for side in ("arm_a", "arm_b")}
        if len(view.panels) > len({panel.arm for panel in view.panels}):
            row |= {f"arm_{x}_name": f"{row[f'arm_{x}']} ({dataset_title(str(row[f'dataset_{x}']))})" for x in "ab"}
        _worded(row)
        found["methods" if row["arm_a"] == row["arm_b"] else "arms"].append(row)
    return found


def variant_rows(path: Path, view: View) -> list[dict]:
    """Return the view's variant effects, each row with its verdict in words; empty without a file or variants."""
    if not path.is_file():
        return []
    table = read_table(path)
    mask = np.isclose(table["retain_budget"].astype(float), view.budget) & (table["scoring"] == view.scoring)
    mask &= table["selection"].isin([view.selection, ON_V]) & table["quantity"].isin(QUANTITIES)
    panels = {(panel.dataset, panel.model, panel.arm): panel for panel in view.panels}
    rows = []
    for row in table[mask].to_dict("records"):
        panel = panels.get((str(row["dataset"]), str(row["model"]), str(row["arm"])))
        row["facts"] = panel.name if panel else f"{row['arm']} ({dataset_title(str(row['dataset']))})"
        rows.append(_worded(row))
    return rows


def _worded(row: dict) -> dict:
    """Give a row of differences its quantity in words, its per-seed values, and what it says."""
    row["quantity"] = QUANTITIES.get(row["quantity"], row["quantity"])
    row["points"] = [number(float(value)) for value in str(row["per_seed"]).split(";") if value]
    if row.get("comparable", "yes") != "yes":
        row["verdict"] = row["why"] or "not comparable"
    elif not row["n_seeds"]:
        row["verdict"] = "no seed with both values"
    elif row["n_seeds"] < 2:
        row["verdict"] = "one seed cannot support a statement"
    elif row["low"] > 0 or row["high"] < 0:
        row["verdict"] = f"differs over {row['n_seeds']} seeds"
    else:
        row["verdict"] = f"no difference shown over {row['n_seeds']} seeds"
    return row


def read_audits(results: Path) -> list[dict[str, Any]]:
    """Return the audits `data/*/audit.json` of the study's datasets, with the folder's name, by folder."""
    paths = [
        path for path in sorted((results / "data").glob("*/audit.json")) if _planned(results, "data", path.parent.name)
    ]
    return [{"folder": path.parent.name, **_object(path)} for path in paths]


def _planned(results: Path, kind: str, name: str) -> bool:
    """Is this run or dataset in the study's plan.json? A folder may hold older ones. Without a plan all are."""
    plan = results / "plan.json"
    return not plan.is_file() or name in _object(plan)[kind]


def read_manifests(results: Path) -> list[dict[str, Any]]:
    """Return the manifests of the study's runs (`plan.json`; without it, all of `manifests/*.json`), by file name."""
    paths = sorted((results / "manifests").glob("*.json"))
    return [_object(path) for path in paths if _planned(results, "manifests", path.stem)]


def ledger(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return CPU and wall seconds summed per stage, in the pipeline's order, and a last row for all."""
    order = ["pretrain", "teach", "unlearn", "attack"]
    stages = sorted(
        {str(m.get("stage")) for m in manifests}, key=lambda s: (s not in order, order.index(s) if s in order else 0, s)
    )
    rows = []
    for stage, members in [(s, [m for m in manifests if str(m.get("stage")) == s]) for s in stages] + [
        ("all", manifests)
    ]:
        sums = {name: sum(float(m.get(name) or 0) for m in members) for name in ("cpu_seconds", "wall_seconds")}
        unknown = sum(m.get("cpu_seconds") is None for m in members)
        rows.append({"stage": stage, "runs": len(members), "unknown": unknown, **sums})
    return rows if manifests else []


def provenance(manifests: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return (what, distinct values over all manifests): commits, Python, packages, hardware, precision."""
    commits = {
        f"{m.get('git_commit') or 'unknown'}{' (with changes not committed)' if m.get('git_dirty') else ''}"
        for m in manifests
    }
    packages = {f"{name} {number_}" for m in manifests for name, number_ in (m.get("packages") or {}).items()}
    hardware = {
        ", ".join(f"{key} {value}" for key, value in sorted((m.get("hardware") or {}).items()) if value is not None)
        for m in manifests
    }
    rows = [("git commit", commits), ("packages", packages), ("hardware", hardware - {""})]
    for key in ("python", "precision", "attn_backend", "launcher", "world_size", "deterministic", "threads"):
        rows.append((key.replace("_", " "), {str(m[key]) for m in manifests if m.get(key) is not None}))
    return [(what, sorted(values)) for what, values in rows if values]


def _object(path: Path) -> dict[str, Any]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: expected a JSON object, found {type(value).__name__}; run the step that writes it again"
        )
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such study file") from None
