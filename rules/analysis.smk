"""From scores to tables, figures and the report. No rule here reads weights or imports torch.

A study (study.smk) and a bundle (artifacts.smk) share these rules. Whoever includes them says before:
  NAME      the study's name
  RESULTS   its folder, results/<NAME> here or in another place
  EVALS, POINT_CHOICES, AUDITS, MANIFESTS   files, or folders of them, that these rules read
  ATTACKED  whether anything was attacked: only then is there recovery to draw
  ABOUT     a description of the study for `snakemake --report`
  SETTINGS  what the report prints about the study; where it changes, the report is made again
  TEXTS     the files with the texts of questions, where the report shows them
  REFERENCE the bundle of the reference study, among whose seeds the report shows this one's; or []
Outputs: tables/*.csv, figures/*.svg and *.png, report.html.

Each rule leaves a file code/<step>-<hash of its code> beside them, with the sha256 of what it read and made. Where the
code, or the lock of the environment that draws, has changed since, that file is missing, so the step runs again, even if
no .snakemake folder remembers the last time; where a file has changed, `content` says so to Snakemake.
"""

from rtt.report.captions import labels
from rtt.study.names import DRAWN_FROM, FIGURES

CATEGORY = f"Study {NAME}"


rule tables:
    """Make the tables: recovery, runs, probes, accuracies, seeds, contrasts, effects of variants, headline, strongest attack, cost, questions."""
    input:
        evals=EVALS,
        point_choices=POINT_CHOICES,
    output:
        record=stamp(RESULTS, "tables"),
        recovery=report(
            f"{RESULTS}/tables/recovery.csv",
            caption="../report/tables.rst",
            category=CATEGORY,
            subcategory="Tables",
            labels=labels(ABOUT, table="recovery"),
        ),
        runs=f"{RESULTS}/tables/runs.csv",
        probes=report(
            f"{RESULTS}/tables/probes.csv",
            caption="../report/tables.rst",
            category=CATEGORY,
            subcategory="Tables",
            labels=labels(ABOUT, table="probes before any attack"),
        ),
        accuracy=f"{RESULTS}/tables/accuracy.csv",
        seeds=report(
            f"{RESULTS}/tables/seeds.csv",
            caption="../report/tables.rst",
            category=CATEGORY,
            subcategory="Tables",
            labels=labels(ABOUT, table="cells over seeds"),
        ),
        contrasts=report(
            f"{RESULTS}/tables/contrasts.csv",
            caption="../report/tables.rst",
            category=CATEGORY,
            subcategory="Tables",
            labels=labels(ABOUT, table="contrasts over seeds"),
        ),
        variants=report(
            f"{RESULTS}/tables/variants.csv",
            caption="../report/tables.rst",
            category=CATEGORY,
            subcategory="Tables",
            labels=labels(ABOUT, table="effects of variants"),
        ),
        headline=report(
            f"{RESULTS}/tables/headline.csv",
            caption="../report/tables.rst",
            category=CATEGORY,
            subcategory="Tables",
            labels=labels(ABOUT, table="what the study reports first"),
        ),
        strongest=f"{RESULTS}/tables/strongest.csv",
        cost=f"{RESULTS}/tables/cost.csv",
        questions=f"{RESULTS}/tables/questions.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        results=subpath(output.recovery, ancestor=2),
        shows=lambda wildcards: ABOUT,
        forget=old_stamps(RESULTS, "tables"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt tables \
            --evals {params.results:q}/evals \
            --point-choices {params.results:q}/point_choices \
            --runs {params.results:q}/runs.json \
            --out {params.results:q}/tables \
            --record {output.record:q}
        """


rule figure:
    """Draw one figure from the tables."""
    input:
        recovery=rules.tables.output.recovery,
        others=[f"{RESULTS}/tables/{name}.csv" for name in DRAWN_FROM if name != "recovery"],
    output:
        record=stamp(RESULTS, "figure", "figure-{figure}"),
        svg=report(
            f"{RESULTS}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category=CATEGORY,
            subcategory="Figures",
            labels=labels(ABOUT, figure="{figure}"),
        ),
        png=f"{RESULTS}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure/{{figure}}.log",
    wildcard_constraints:
        figure=alternatives(FIGURES),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        tables=subpath(input.recovery, parent=True),
        shows=lambda wildcards: ABOUT,
        forget=old_stamps(RESULTS, "figure", "figure-{figure}"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt figure {wildcards.figure} --tables {params.tables:q} --out {output.svg:q} {output.png:q} \
            --record {output.record:q}
        """


rule report:
    """Write the report. It draws the figures itself, from the same tables."""
    input:
        tables=list(rules.tables.output),
        audits=AUDITS,
        texts=TEXTS,
        manifests=MANIFESTS,
        reference=REFERENCE,
    output:
        record=stamp(RESULTS, "report"),
        page=report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category=CATEGORY,
            subcategory="Report",
            labels=labels(ABOUT, page="the whole report"),
        ),
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        root=subpath(output.page, ancestor=3),
        study=NAME,
        record=subpath(output.record, basename=True),
        settings=lambda wildcards: SETTINGS,
        shows=lambda wildcards: ABOUT,
        reference=" ".join(f"--reference {shlex.quote(str(Path(one).parent.resolve()))}" for one in REFERENCE),
        forget=old_stamps(RESULTS, "report"),
    # The page quotes the paths that it is given. Seen from `root`, a bundle's are those that its study had.
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        cd {params.root:q}
        python -m rtt report \
            --results results/{params.study} \
            --study-config results/{params.study}/study.yaml \
            --out results/{params.study}/report.html {params.reference} \
            --record results/{params.study}/code/{params.record:q}
        """


# What a study ends in. Figures and report are about recovery; a study without attacks has tables and audits.
FINAL_FILES = [*rules.tables.output]
FINAL_FILES += [*expand(rules.figure.output, figure=FIGURES), *rules.report.output] if ATTACKED else AUDITS
