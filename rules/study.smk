"""A study: all rules from the facts to the report."""

from rtt.bundle.contents import attacked, stale, unproved
from rtt.report.captions import described

STUDY = read_study(workflow)
check_extras(STUDY, workflow)
RUNS = expand_study(STUDY)
NEEDS = needs(STUDY)
if workflow.is_main_process:
    check_before(workflow, RUNS, NEEDS)
NAME = STUDY.study
RESULTS = f"results/{NAME}"
TORCH_ENVIRONMENT = torch_environment(STUDY)


# Of all rules: under --software-deployment-method apptainer their steps run in this image.
container: container_image(workflow, STUDY.container)


shell.prefix(literally(PREFIX + machine(STUDY, NEEDS)))
content.mend(RESULTS, workflow.is_main_process)


wildcard_constraints:
    raw=alternatives(RUNS.raw),
    data=alternatives(RUNS.data),
    texts=alternatives(RUNS.texts),
    run=alternatives(RUNS.imports, RUNS.sources, RUNS.unlearn, RUNS.choices, RUNS.attacks),


include: "data.smk"
include: "models.smk"
include: "unlearn.smk"
include: "attack.smk"


EVALS = scored()
POINT_CHOICES = [f"{RESULTS}/point_choices/{run}.json" for run in RUNS.choices]
AUDITS = [f"{RESULTS}/data/{data}/audit.json" for data in RUNS.data]
TEXTS = [f"{RESULTS}/data/{data}/facts.jsonl" for data in RUNS.data if STUDY.report_texts]
MANIFESTS = [f"{RESULTS}/manifests/{run}.json" for run in RUNS.plan()["manifests"]]
ATTACKED = attacked(RUNS.plan())
ABOUT = described(STUDY)
SETTINGS = canonical_json(STUDY.canonical())
REFERENCE = sorted(map(str, (places.SHIPPED / "results/reference").glob("*.zip")))


include: "analysis.smk"
include: "bundle.smk"


slurm_executor.mend()

# Say who is at work here: Snakemake's own lock, which is tried next, names nobody, and jobs of a killed run hold none.
if workflow.is_main_process and (found := at_work()):
    logger.warning(found)

# Snakemake keeps results that came from elsewhere, which its .snakemake folder does not remember. Whether they are stale
# is known from the hashes of the code that made them, and whether they are whole from their manifests.
if workflow.is_main_process:
    try:
        for line in [*stale(Path(RESULTS), RUNS.plan()), *unproved(Path(RESULTS), RUNS.plan())]:
            logger.warning(f"warning: {line}")
    except UserError as error:  # a damaged file: the step that reads it says what to do
        logger.warning(f"warning: {error}")


onstart:
    check_nodes(workflow, STUDY)
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


rule fetch:
    """Fetch everything that comes from the network, on a login node and ahead of time."""
    input:
        [raw_folder(raw) for raw in RUNS.raw.values() if raw.files and raw.files.group],
        [texts_file(texts) for texts in RUNS.texts.values()],
        [model_folder(model) for model in RUNS.imports.values()],


rule figures:
    """Make the tables, the figures and the report; with `--config artifacts=`, those of a bundle (artifacts.smk)."""
    input:
        FINAL_FILES,
