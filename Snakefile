"""Unlearning RTT: from a study file to figures.

facts -> base model -> taught models -> unlearned models -> selection -> RTT -> tables -> figures -> report

One study file decides a run: `--configfile X` replaces the default, `--config key=value` sets single keys (docs/config.md).
"""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"


STUDY = read_study(workflow)
RUNS = Runs(STUDY)
RESULTS = f"results/{STUDY.study}"


wildcard_constraints:
    data=alternatives(RUNS.data),
    run=alternatives({**RUNS.sources, **RUNS.unlearn, **RUNS.attacks, **RUNS.controls}),
    figure="accuracy|recovery|tradeoff|curves",


include: "rules/data.smk"
include: "rules/models.smk"
include: "rules/unlearn.smk"
include: "rules/rtt.smk"
include: "rules/analysis.smk"


onstart:
    write_specs(RUNS, RESULTS)
    locks.claim(locks.FOLDER, "snakemake")


onsuccess:
    locks.release()


onerror:
    locks.release()


rule all:
    default_target: True
    input:
        f"{RESULTS}/report.html",
        expand(f"{RESULTS}/figures/{{figure}}.{{format}}", figure=FIGURES, format=["svg", "png"]),
        rules.tables.output,
