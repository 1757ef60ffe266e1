"""A finished study as one file for others.

Output: dist/<study>-<hash of its content>.zip. No rule can know that name beforehand, so this one has no output and runs
whenever it is asked for.
"""


rule bundle:
    """Pack the study's scores, and all that is made from them, into one file."""
    input:
        FINAL_FILES,
        EVALS,
        AUDITS,
        MANIFESTS,
        recovery=rules.tables.output.recovery,
    log:
        f"{RESULTS}/logs/bundle.log",
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        results=subpath(input.recovery, ancestor=2),
        texts="--texts" if option(workflow, "bundle_texts").lower() == "true" else "",
        compact="--compact" if option(workflow, "bundle_compact").lower() == "true" else "",
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt bundle --results {params.results:q} {params.texts} {params.compact}
        """
