"""From a bundle to tables, figures and the report. No rule here trains or scores.

Input: `--config artifacts=` a bundle (.zip), its URL, the folder of an unpacked one, or a results folder.
Outputs, in dist/rebuilt/<study>-<hash of the content>/: given/, which holds the bundle, and results/<study>/, which holds
what is rebuilt from it.
"""

from rtt.bundle import opening

try:
    OPENED = opening.look(ARTIFACTS)
except UserError as error:
    raise WorkflowError(str(error))
for line in opening.stale(OPENED.index):
    logger.warning(line)

NAME = OPENED.index.study
ROOT = f"dist/rebuilt/{OPENED.name}"
RESULTS = f"{ROOT}/results/{NAME}"


# Of all rules: under --software-deployment-method apptainer their steps run in this image.
container: container_image(workflow, option(workflow, "container"))


shell.prefix(literally(PREFIX))
content.mend(RESULTS, workflow.is_main_process)


# Others see that somebody draws here; `python -m rtt run` then leaves Snakemake's lock alone.
onstart:
    locks.register(locks.DRAWING, "snakemake", role="main")


onsuccess:
    locks.release(locks.DRAWING)


onerror:
    locks.release(locks.DRAWING)


rule unpack:
    """Verify the bundle and unpack it."""
    input:
        [path for path in OPENED.inputs if "{" not in path],  # Snakemake takes braces for a wildcard
    output:
        touch(stamp(RESULTS, "unpack")),
        f"{RESULTS}/runs.json",
        f"{RESULTS}/study.yaml",
        directory(f"{RESULTS}/specs"),
        evals=directory(f"{RESULTS}/evals"),
        point_choices=directory(f"{RESULTS}/point_choices"),
        audits=directory(f"{RESULTS}/data"),
        manifests=directory(f"{RESULTS}/manifests"),
        given=directory(f"{ROOT}/given"),
    log:
        f"{ROOT}/logs/unpack.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        artifacts=lambda wildcards: str(OPENED.path),
        root=subpath(output.given, parent=True),
        forget=old_stamps(RESULTS, "unpack"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt unpack {params.artifacts:q} --out {params.root:q}
        """


EVALS = rules.unpack.output.evals
POINT_CHOICES = rules.unpack.output.point_choices
AUDITS = [rules.unpack.output.audits]
TEXTS = []  # those of a bundle that has them lie beside its audits
MANIFESTS = rules.unpack.output.manifests
ATTACKED = OPENED.index.shown
ABOUT = {}  # what the bundle says about its study is not verified yet
SETTINGS = OPENED.id
REFERENCE = []  # a bundle's report shows its own study alone


include: "analysis.smk"


rule figures:
    """Redraw everything, and say which files equal the bundle's. It runs every time, for what it says."""
    input:
        FINAL_FILES,
        given=rules.unpack.output.given,
    log:
        f"{ROOT}/logs/verify.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        root=subpath(input.given, parent=True),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt verify {params.root:q}
        """
