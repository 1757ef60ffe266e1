"""Tables, figures and the report: no weights, no torch.

Inputs: all evaluation JSON, point_choices, audits, manifests.
Outputs: tables/*.csv, figures/*.svg and *.png, report.html; code/<step>-<hash of its code>, as in artifacts.smk. The
report draws the figures itself, from the same tables.
"""

from rtt.report.captions import described, labels


rule tables:
    """Tables: accuracies, recovery, contrasts between arms."""
    input:
        evals=scored(),
        point_choices=[f"{RESULTS}/point_choices/{run}.json" for run in RUNS.choices],
    output:
        stamp(RESULTS, "tables"),
        recovery=report(
            f"{RESULTS}/tables/recovery.csv",
            caption="../report/tables.rst",
            category=f"Study {STUDY.study}",
            subcategory="Tables",
            labels=labels(STUDY, table="recovery"),
        ),
        accuracy=f"{RESULTS}/tables/accuracy.csv",
        contrasts=report(
            f"{RESULTS}/tables/contrasts.csv",
            caption="../report/tables.rst",
            category=f"Study {STUDY.study}",
            subcategory="Tables",
            labels=labels(STUDY, table="contrasts over seeds"),
        ),
        variants=report(
            f"{RESULTS}/tables/variants.csv",
            caption="../report/tables.rst",
            category=f"Study {STUDY.study}",
            subcategory="Tables",
            labels=labels(STUDY, table="effects of variants"),
        ),
    log:
        f"{RESULTS}/logs/tables.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        results=subpath(output.recovery, ancestor=2),
        shows=described(STUDY),
        forget=old_stamps(RESULTS, "tables"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt tables \
            --evals {params.results:q}/evals \
            --point-choices {params.results:q}/point_choices \
            --runs {params.results:q}/runs.json \
            --out {params.results:q}/tables
        """


rule figure:
    """Figure."""
    input:
        recovery=rules.tables.output.recovery,
        accuracy=rules.tables.output.accuracy,
    output:
        stamp(RESULTS, "figure", "figure-{figure}"),
        svg=report(
            f"{RESULTS}/figures/{{figure}}.svg",
            caption="../report/figure.rst",
            category=f"Study {STUDY.study}",
            subcategory="Figures",
            labels=labels(STUDY, figure="{figure}"),
        ),
        png=f"{RESULTS}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure/{{figure}}.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        tables=subpath(input.recovery, parent=True),
        shows=described(STUDY),
        forget=old_stamps(RESULTS, "figure", "figure-{figure}"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt figure {wildcards.figure} --tables {params.tables:q} --out {output.svg:q} {output.png:q}
        """


rule report:
    """Report."""
    input:
        tables=list(rules.tables.output),
        manifests=[f"{RESULTS}/manifests/{run}.json" for run in RUNS.plan()["manifests"]],
        audits=[f"{RESULTS}/data/{data}/audit.json" for data in RUNS.data],
    output:
        stamp(RESULTS, "report"),
        page=report(
            f"{RESULTS}/report.html",
            caption="../report/report.rst",
            category=f"Study {STUDY.study}",
            subcategory="Report",
            labels=labels(STUDY, page="the whole report"),
        ),
    log:
        f"{RESULTS}/logs/report.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        results=subpath(output.page, parent=True),
        study=STUDY.model_dump_json(),
        shows=described(STUDY),
        forget=old_stamps(RESULTS, "report"),
    shell:
        """
        exec &> >(tee {log:q})
        rm -f {params.forget}
        python -m rtt report \
            --results {params.results:q} \
            --study-config {params.results:q}/study.yaml \
            --out {output.page:q}
        """
