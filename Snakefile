"""Unlearning RTT: from a study file to figures.

facts -> base model -> taught models -> unlearned models -> point choice -> attacks -> tables -> figures -> report

One study file decides a run: `--configfile X` replaces the default, `--config key=value` sets single keys
(docs/config.md).
`snakemake figures --config artifacts=X` needs no study file: it redraws what a bundle holds (docs/bundle.md).
"""

from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"


# A bundle, or a results folder from elsewhere: everything is redrawn from its scores, and there is no rule that trains.
ARTIFACTS = option(workflow, "artifacts")


include: "rules/artifacts.smk" if ARTIFACTS else "rules/study.smk"


rule all:
    default_target: True
    input:
        FINAL_FILES,
