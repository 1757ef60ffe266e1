"""A study: every rule from facts to report, and its targets."""

from rtt.bundle.contents import FIGURES, stale

STUDY = read_study(workflow)
RUNS = expand_study(STUDY)
NEEDS = needs(STUDY)
RESULTS = f"results/{STUDY.study}"
TORCH_ENVIRONMENT = torch_environment(STUDY)

shell.prefix(PREFIX + machine(STUDY))


wildcard_constraints:
    raw=alternatives(RUNS.raw),
    data=alternatives(RUNS.data),
    texts=alternatives(RUNS.texts),
    run=alternatives(
        RUNS.imports, RUNS.sources, RUNS.unlearn, RUNS.choices, RUNS.attacks
    ),
    figure=alternatives(FIGURES),


include: "data.smk"
include: "models.smk"
include: "unlearn.smk"
include: "attack.smk"
include: "analysis.smk"
include: "bundle.smk"


slurm_executor.mend()

# Snakemake's own lock, met next, names nobody; and jobs of a killed run hold none.
if workflow.is_main_process and (found := locks.busy()):
    logger.warning(found)

# What .snakemake does not remember, a results folder from elsewhere, is kept; its makers' hashes say whether it is stale.
if workflow.is_main_process:
    try:
        for line in stale(Path(RESULTS), RUNS.plan()):
            logger.warning(line)
    except UserError as error:  # a file that is damaged: the step that reads it says what to do
        logger.warning(str(error))


onstart:
    claim()
    write_specs(RUNS, RESULTS)
    if hint := account_hint(workflow):
        logger.warning(hint)


onsuccess:
    locks.release()


onerror:
    locks.release()
    if any("SLURM sbatch failed" in Path(path).read_text() for path in log) and (hint := account_hint(workflow)):
        logger.error(hint)


# Figures and report are of recovery; a study that unlearns or attacks nothing has tables and audits.
SHOWN = (
    [*rules.report.output, *expand(rules.figure.output, figure=FIGURES)]
    if RUNS.attacks
    else [f"{RESULTS}/data/{data}/audit.json" for data in RUNS.data]
)


TARGETS = [*SHOWN, *rules.tables.output]


rule fetch:
    """Everything that comes from the network: on a login node, ahead of time."""
    input:
        [raw_folder(raw) for raw in RUNS.raw.values() if raw.files and raw.files.group],
        [texts_file(texts) for texts in RUNS.texts.values()],
        [model_folder(model) for model in RUNS.imports.values()],


rule figures:
    """Tables, figures and report alone; with `--config artifacts=`, of a bundle (rules/artifacts.smk)."""
    input:
        TARGETS,
