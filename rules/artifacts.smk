"""Figures from artifacts: tables, figures and report made again from a bundle's scores. No rule here trains or scores.

Inputs: `--config artifacts=` a bundle (.zip), its URL, the folder of an unpacked one, or a results folder.
Outputs: dist/rebuilt/<study>-<hash>/: given/ (the bundle, verified), results/<study>/ (rebuilt; its report), code/.

A file code/<step>-<hash of its code> is an output of the step beside the others: where the code (or the lock of the
environment that draws) has changed since, that file is missing, so the step runs again, whether or not there is a
.snakemake folder that remembers anything. <hash> is of the artifact's content.
"""

from snakemake.logging import logger

from rtt.bundle import contents, opening

try:
    OPENED = opening.look(ARTIFACTS)
except UserError as error:
    raise WorkflowError(str(error))
for line in opening.stale(OPENED.index):
    logger.warning(line)

ROOT = f"dist/rebuilt/{OPENED.name}"
NAME = OPENED.index.study
MADE = f"{ROOT}/results/{NAME}"

shell.prefix(PREFIX)


wildcard_constraints:
    figure="|".join(contents.FIGURES),


rule unpack:
    """Verify and unpack."""
    input:
        OPENED.inputs,
    output:
        stamp(ROOT, "unpack"),
        [directory(f"{MADE}/{folder}") for folder in ("specs", "evals", "point_choices", "data", "manifests")],
        given=directory(f"{ROOT}/given"),
        plan=f"{MADE}/runs.json",
        study=f"{MADE}/study.yaml",
    log:
        f"{ROOT}/logs/unpack.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        artifacts=lambda wildcards: str(OPENED.path),
        root=subpath(output.given, parent=True),
        forget=old_stamps(ROOT, "unpack"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt unpack {params.artifacts:q} --out {params.root:q}
        """


rule rebuild_tables:
    """Tables again."""
    input:
        rules.unpack.output,
        plan=rules.unpack.output.plan,
    output:
        stamp(ROOT, "tables"),
        tables=[f"{MADE}/tables/{name}.csv" for name in contents.TABLES],
    log:
        f"{ROOT}/logs/tables.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        made=subpath(input.plan, parent=True),
        forget=old_stamps(ROOT, "tables"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt tables \
            --evals {params.made:q}/evals \
            --point-choices {params.made:q}/point_choices \
            --runs {params.made:q}/runs.json \
            --out {params.made:q}/tables
        """


rule rebuild_figure:
    """Figure again."""
    input:
        rules.rebuild_tables.output.tables,
    output:
        stamp(ROOT, "figure", "figure-{figure}"),
        svg=f"{MADE}/figures/{{figure}}.svg",
        png=f"{MADE}/figures/{{figure}}.png",
    log:
        f"{ROOT}/logs/figure/{{figure}}.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        tables=subpath(input[0], parent=True),
        forget=old_stamps(ROOT, "figure", "figure-{figure}"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt figure {wildcards.figure} --tables {params.tables:q} --out {output.svg:q} {output.png:q}
        """


rule rebuild_report:
    """Report again."""
    input:
        rules.rebuild_tables.output.tables,
        rules.unpack.output,
        given=rules.unpack.output.given,
    output:
        stamp(ROOT, "report"),
        page=f"{MADE}/report.html",
    log:
        os.path.abspath(f"{ROOT}/logs/report.log"),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        root=subpath(input.given, parent=True),
        results=f"results/{NAME}",
        forget=old_stamps(ROOT, "report"),
    # The page quotes the paths that it is given: from inside, they are those that the study had.
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        cd {params.root:q}
        python -m rtt report \
            --results {params.results:q} \
            --study-config {params.results:q}/study.yaml \
            --out {params.results:q}/report.html
        """


TARGETS = [*rules.unpack.output, *rules.rebuild_tables.output]
if OPENED.index.shown:
    TARGETS += [*expand(rules.rebuild_figure.output, figure=contents.FIGURES), *rules.rebuild_report.output]


rule figures:
    """Redraw, and say what equals the bundle's. It runs each time, for what it says."""
    input:
        TARGETS,
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
