"""Tables, figures and the report: no weights, no torch.

Inputs: all evaluation JSON, selections, audits, manifests.
Outputs: tables/*.csv, figures/*.svg and *.png, report.html.
"""


rule tables:
    """Tables: accuracies, recovery, contrasts between arms."""
    input:
        evals=[eval_file(stem) for stem in RUNS.eval_ids()],
        selections=[f"{RESULTS}/selections/{run}.json" for run in RUNS.unlearn],
    output:
        recovery=f"{RESULTS}/tables/recovery.csv",
        accuracy=f"{RESULTS}/tables/accuracy.csv",
        contrasts=f"{RESULTS}/tables/contrasts.csv",
    log:
        f"{RESULTS}/logs/tables.log",
    conda:
        "../envs/analysis.yaml"
    params:
        results=RESULTS,
        code=code_version("tables"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt tables \
            --evals {params.results:q}/evals \
            --selections {params.results:q}/selections \
            --out {params.results:q}/tables
        """


rule figure:
    """Figure."""
    input:
        rules.tables.output,
    output:
        svg=f"{RESULTS}/figures/{{figure}}.svg",
        png=f"{RESULTS}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure/{{figure}}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        tables=f"{RESULTS}/tables",
        code=code_version("figure"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt figure {wildcards.figure} --tables {params.tables:q} --out {output.svg:q} {output.png:q}
        """


rule report:
    """Report."""
    input:
        rules.tables.output,
        figures=expand(f"{RESULTS}/figures/{{figure}}.svg", figure=["accuracy", "recovery", "tradeoff", "curves"]),
        audits=[f"{RESULTS}/data/{data}/audit.json" for data in RUNS.data],
    output:
        f"{RESULTS}/report.html",
    log:
        f"{RESULTS}/logs/report.log",
    conda:
        "../envs/analysis.yaml"
    params:
        results=RESULTS,
        study=STUDY.model_dump_json(),
        code=code_version("report"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt report --results {params.results:q} --study-config {params.results:q}/plan.json --out {output:q}
        """
