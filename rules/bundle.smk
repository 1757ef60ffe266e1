"""A finished study as one file for others.

Inputs: what the study shows, its tables, scores, manifests and audits.
Outputs: dist/<study>-<hash>.zip; the hash is of its content, so no rule can name it before: this one runs whenever it is asked for.
"""


rule bundle:
    """Bundle."""
    input:
        evals=scored(),
        recovery=rules.tables.output.recovery,
        audits=[f"{RESULTS}/data/{data}/audit.json" for data in RUNS.data],
        manifests=[f"{RESULTS}/manifests/{run}.json" for run in RUNS.plan()["manifests"]],
        shown=lambda wildcards: SHOWN,
    log:
        f"{RESULTS}/logs/bundle.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        results=subpath(input.recovery, ancestor=2),
        texts="--texts" if option(workflow, "bundle_texts").lower() == "true" else "",
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt bundle --results {params.results:q} {params.texts}
        """
