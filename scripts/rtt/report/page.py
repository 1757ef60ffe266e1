"""`python -m rtt report`: tables, audits and manifests -> one self-contained page that says what they show."""

import argparse
import math
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from rtt import __version__, records
from rtt.figures.draw import FIGURES
from rtt.figures.outcomes import of_panels, outcomes
from rtt.figures.phrases import upper
from rtt.figures.style import number, percent
from rtt.files import write_text
from rtt.report import conclusions, controls, cost, differences, rows, seeds, strength, tested, variants
from rtt.report import reference as reference_study
from rtt.report.allowance import allowance
from rtt.report.among import Among, among
from rtt.report.audits import Audit, audit, counts, guessable, guesses
from rtt.report.caveats import caveats
from rtt.report.criteria import criteria
from rtt.report.follow import Followed, followed
from rtt.report.glossary import TERMS, explained, identifier, terms
from rtt.report.headline import HeadlineRow, headline, meaning
from rtt.report.images import Image, Steps, has_something, image, steps
from rtt.report.inputs import Inputs, files_read, part, read_inputs
from rtt.report.lede import Outcome, lede
from rtt.report.other_attacks import OtherAttacks, described, in_short, other_attacks
from rtt.report.published import Published, published
from rtt.report.script import as_json, script
from rtt.report.subject import facts, model
from rtt.report.sure import Sure, sure
from rtt.stats.shown import main_seed
from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK


@dataclass(frozen=True)
class Section:
    """One section of the page (templates/<id>.html.j2): its name in the contents, its title, whether it is folded."""

    id: str
    short: str
    title: str
    folded: bool = True


SECTIONS = (  # in the page's order
    Section("came-out", "What came out", "What was done, and what came out", folded=False),
    Section("sure", "How sure?", "How sure are we?", folded=False),
    Section("result", "Method by method", "What did each method do?", folded=False),
    Section("fact", "One fact", "What happens to one fact?", folded=False),
    Section("gone", "Before the attack", "Was it gone before the attack?", folded=False),
    Section("words", "Words", "What do the words mean?"),
    Section("claim", "Claim", "What exactly is claimed, and by which criterion?"),
    Section("caveats", "Caveats", "What weakens these results?"),
    Section("figures", "Figures", "What do the other figures show?"),
    Section("unlearned", "Unlearned?", "Which models count as unlearned?"),
    Section("probes", "Probes", "What does each probe show before the attack?"),
    Section("controls", "Controls", "What does the format alone bring back?"),
    Section("published", "The paper", "What did the paper find?"),
    Section("recovery", "Recovery", "How much came back, by every measure?"),
    Section("attacks", "Other attacks", "What did the other attacks bring back?"),
    Section("formats", "Formats", "Does it depend on how the facts are asked and trained?"),
    Section("faithful", "Faithful switches", "What if it is done exactly as in the authors' code?"),
    Section("sensitivity", "Sensitivity", "What if something else had been chosen?"),
    Section("seeds", "Seeds and arms", "How much differs between seeds, and between arms?"),
    Section("reference", "Reference study", "Where does this study stand among the project's own seeds?"),
    Section("audit", "Audit", "Are the data sound?"),
    Section("compute", "Compute", "What did it cost?"),
    Section("provenance", "Provenance", "How can it be checked?"),
)
ELSEWHERE = ("probes", "attacks", "sensitivity")  # figures that stand in sections of their own


@dataclass(frozen=True)
class Scope:
    """Of which results the page tells where it does not say otherwise."""

    attack: str
    attack_text: str
    probe: str
    look_choice: str
    budget: str
    seeds: list[int]
    several_seeds: bool
    several_runs: bool
    has_oracle: bool
    has_perplexity: bool
    several_budgets: bool
    main_seed: int
    main_arm: bool


@dataclass(frozen=True)
class Report:
    """All that the page says, as plain records, section by section; the templates (`templates/`) only print it."""

    sections: list[Section]
    # came-out, sure, result, fact, gone, words
    lede: str
    about: str
    steps: Steps
    sure: Sure
    headline: list[rows.Group[HeadlineRow]]
    strongest: str
    followed: Followed | None
    probes_image: Image | None
    words: dict[str, str]
    name: str
    folder: str
    version: str
    scope: Scope
    # claim, seeds
    verdicts: list[conclusions.Verdict]
    over_seeds_claims: list[str]
    over_seeds: list[rows.Group[conclusions.OverSeeds]]
    over_seeds_sentence: str
    recoveries_over_seeds: seeds.SeedTable | None
    among: Among | None
    contrasts_of_arms: list[differences.Contrast] | None
    contrasts_of_methods: list[differences.Contrast]
    # figures
    images: list[Image]
    sensitivity_image: Image | None
    attacks_image: Image | None
    # unlearned, probes, controls
    unlearned_test: tested.UnlearnedTest | None
    probe_table: tested.ProbeTable | None
    control_attacks: list[controls.ControlAttack]
    # published, recovery, attacks
    published: Published
    tables: list[rows.RecoveryTable]
    more_tables: list[rows.RecoveryTable]
    allowance: str
    budgets: list[rows.Group[rows.Cell]]
    other_attacks: OtherAttacks | None
    # formats, faithful, sensitivity
    by_probe: list[rows.Group[rows.Cell]]
    faithful: str
    effects: dict[str, list[differences.Effect]]
    points: int
    attacked_points: int
    trajectories: list[rows.Group[strength.Trajectory]]
    settings: strength.SettingTable
    edges: list[str]
    sizes_of_t: variants.SizesOfT
    # caveats, audit, compute, provenance
    caveats: list[str]
    audits: list[Audit]
    ledger: list[cost.Stage]
    energy: str
    provenance: list[tuple[str, str]]
    commit: str | None
    figure_commands: list[str]
    report_command: str
    checksums: list[tuple[str, str]]
    study_config: str
    study_file: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--results", required=True, type=Path, help="folder of a study, with tables/, data/, evals/")
    parser.add_argument("--study-config", required=True, type=Path, help="the study file, shown under provenance")
    parser.add_argument("--out", required=True, type=Path, help="the page to write: report.html")
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FOLDER",
        help="folder with the bundle of a reference study, among whose seeds the page shows this study's, if it fits",
    )
    parser.add_argument(
        "--no-texts",
        action="store_true",
        help="leave out the texts of the questions, which the page shows where the study's facts.jsonl are there",
    )
    records.configure(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    texts = not args.no_texts
    write_text(args.out, page(args.results, args.study_config, args.reference, texts))
    print(args.out)
    if args.record:
        bundles = [] if args.reference is None else reference_study.bundles(args.reference)
        records.write(args.record, [*files_read(args.results, texts), *bundles], [args.out])
    return 0


def page(
    results: str | Path, study_config: str | Path, reference: Path | None = None, texts: bool | Path = True
) -> str:
    """Return the page: the same text for the same files. Raises UserError when a file cannot be read.

    reference: a folder as of `rtt.report.reference.read`, or None. texts: as of `rtt.report.inputs.read_inputs`.
    """
    results, study_config = Path(results), Path(study_config)
    inputs = read_inputs(results, study_config, texts)
    other = None if reference is None else reference_study.read(inputs.study, reference)
    return render(report(inputs, results, study_config, other))


def report(
    inputs: Inputs, results: Path, study_config: Path, reference: reference_study.Reference | None = None
) -> Report:
    """Return all that the page says. The paths are named in its commands."""
    view, study = inputs.view, inputs.study
    folder, config = shlex.quote(results.as_posix()), shlex.quote(study_config.as_posix())
    tables_folder = shlex.quote(f"{results.as_posix()}/tables")
    found = rows.results(view)
    shown = rows.shown(found, view)
    asked = tested.asked_models(view)
    own = criteria(study, list(dict.fromkeys(view.everything["probe"])))
    numbers = sorted({one.seed for one in shown})
    over_seeds = conclusions.over_seeds(shown)
    attacked = strength.attacked_models(view)
    edges = strength.edges(view.attack_title, attacked)
    effects = differences.effects(inputs.variants, view, study)
    arms, methods = (None, []) if inputs.contrasts is None else differences.contrasts(inputs.contrasts, view)
    attacked_points, points = strength.attacked_points(view)
    tables = rows.recovery_tables(found, view, view.attack)
    main = [table for table in tables if table.probe == tables[0].probe]
    others = other_attacks(found, view, inputs.other_views)
    figures = [name for name in FIGURES if name != "steps" and has_something(name, view)]
    first = steps(1, view, tables_folder)
    images = [image(name, index, view, tables_folder) for index, name in enumerate(figures, 2)]
    panels = conclusions.main_panels(view.panels)
    seen = among(view, reference, len(images) + 2)
    told = outcomes(view)
    own_told = of_panels(told, panels)
    tried = [one.attack_title for name, one in view.by_attack.items() if name != STRONGEST_ATTACK]
    about = model(study, panels, invented=bool(part(study, "data", "generator")))
    parts = {
        "unlearned": tested.unlearned_test(asked, shown),
        "probes": tested.probe_table(asked),
        "controls": controls.control_attacks(found, view),
        "attacks": others,
        "reference": seen,
        "fact": followed(view, panels[0], inputs.questions, inputs.texts),
        "gone": next((one for one in images if one.name == "probes"), None),
        "figures": [one for one in images if one.name not in ELSEWHERE],
        "faithful": study.get("faithful") or effects[variants.FAITHFUL],
        "seeds": len(numbers) > 1,
        "audit": inputs.audits,
        "compute": inputs.manifests,
    }
    parts["formats"] = rows.by_probe(view) or effects[variants.FORMAT] or effects[variants.HIDING]
    return Report(
        sections=[one for one in SECTIONS if parts.get(one.id, True)],
        name=results.resolve().name,
        folder=folder,
        version=__version__,
        scope=Scope(
            attack=view.attack_title,
            attack_text=described(view.attack),
            probe=rows.probe_name(view.probe),
            look_choice=view.look_choice,
            budget=percent(view.budget),
            seeds=numbers,
            several_seeds=len(numbers) > 1,
            several_runs=any(one.n_runs > 1 for one in shown),
            has_oracle=view.has_oracle,
            has_perplexity=any(not math.isnan(one.perplexity_before) for one in found),
            several_budgets=len({one.retain_budget for one in found}) > 1,
            main_seed=main_seed(numbers),
            main_arm=any(one.panel.arm == conclusions.MAIN_ARM for one in shown),
        ),
        lede=lede(
            _outcomes(own_told),
            own_told["method"].nunique(),
            facts(study, panels, counts(inputs.forgotten)),
            about,
            len(numbers),
            view.attack_title,
        ),
        about=about.about,
        steps=first,
        sure=sure(asked, shown, panels, own, guesses(inputs.audits), seen, own_told, tried),
        headline=headline(view, told),
        strongest=in_short(view, panels[0]),
        followed=parts["fact"],
        probes_image=parts["gone"],
        words=terms({method: f"{upper(meaning(method))}." for method in view.methods}),
        verdicts=conclusions.verdicts(shown),
        over_seeds_claims=seeds.claims(view, panels),
        over_seeds=rows.grouped(over_seeds),
        over_seeds_sentence=conclusions.over_seeds_sentence(over_seeds, numbers),
        recoveries_over_seeds=seeds.seed_table(view, repeats(study)),
        among=parts["reference"],
        contrasts_of_arms=arms,
        contrasts_of_methods=methods,
        images=parts["figures"],
        sensitivity_image=next((one for one in images if one.name == "sensitivity"), None),
        attacks_image=next((one for one in images if one.name == "attacks"), None),
        unlearned_test=parts["unlearned"],
        probe_table=parts["probes"],
        control_attacks=parts["controls"],
        published=published(found, view, study, [one.variant for one in effects[variants.FORMAT]]),
        tables=main[:2],
        more_tables=[table for table in tables if table not in main[:2]],
        allowance=allowance(view, study),
        budgets=rows.by_budget(view),
        other_attacks=others,
        by_probe=rows.by_probe(view),
        faithful=", ".join(map(str, study.get("faithful") or [])),
        effects=effects,
        points=points,
        attacked_points=attacked_points,
        trajectories=strength.trajectories(view, inputs.settings),
        settings=strength.setting_table(view.attack_title, attacked),
        edges=edges,
        sizes_of_t=variants.sizes_of_t(view, study),
        caveats=caveats(
            asked,
            shown,
            rows.control_datasets(view),
            edges,
            own,
            guessable(inputs.audits, [panel.dataset for panel in view.panels]),
        ),
        audits=[audit(one) for one in inputs.audits],
        ledger=cost.ledger(inputs.manifests),
        energy=cost.energy(inputs.manifests),
        provenance=cost.provenance(inputs.manifests),
        commit=cost.commit(inputs.manifests),
        figure_commands=[one.command for one in (first.image, *images)],
        report_command=f"python -m rtt report --results {folder} --study-config {config} --out report.html"
        + " --reference results/reference" * (parts["reference"] is not None),
        checksums=inputs.checksums,
        study_config=config,
        study_file=inputs.study_file,
    )


def _outcomes(found: pd.DataFrame) -> list[Outcome]:
    """Return what the test came to, from headline.csv's rows."""
    return [
        Outcome(row["verdict"], row["acc_attacked"], row["acc_control_attacked"]) for row in found.to_dict("records")
    ]


def repeats(study: dict) -> tuple[int, int]:
    """Return how often a study repeats unlearning and the attack."""
    found = part(study, "repeats")
    return tuple(int(found.get(name) or 1) for name in ("unlearning", "attack"))


def render(found: Report) -> str:
    """Return the page of a report."""
    made = environment()
    told = {name: line for name, line in found.words.items() if name in TERMS or name in plugins.methods()}
    made.filters["explained"] = partial(explained, known=told)
    return made.get_template("page.html.j2").render(report=found, scope=found.scope, script=script())


def environment() -> Environment:
    """Return the templates' environment. Everything that comes from a file is escaped."""
    made = Environment(
        loader=PackageLoader("rtt", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": number, "percent": percent, "term_id": identifier, "as_json": as_json}
    return made
