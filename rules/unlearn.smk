"""Unlearned models, and which of them is attacked.

Inputs: an original model, canonical facts.
Outputs: models/<run>/step-<n>.safetensors per point, evals/<run>.json (kind unlearned), selections/<run>.json.
"""


rule unlearn:
    """Unlearn."""
    input:
        source=lambda wildcards: model_folder(RUNS.unlearn[wildcards.run].source),
        facts=lambda wildcards: facts_file(RUNS.unlearn[wildcards.run].source.facts),
        retain=lambda wildcards: facts_file(RUNS.unlearn[wildcards.run].source.retain),
    output:
        points=weights(f"{RESULTS}/models/{{run}}"),
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/unlearn/{{run}}.log",
    wildcard_constraints:
        run="unlearn-.+",
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec_file,
        code=code_version("unlearn"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt unlearn \
            --spec {params.spec:q} \
            --source {input.source:q} \
            --facts {input.facts:q} \
            --retain {input.retain:q} \
            --points {output.points:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q}
        """


rule select:
    """Select a point per retain budget."""
    input:
        original=lambda wildcards: eval_file(RUNS.unlearn[wildcards.run].source.run_id),
        unlearned=f"{RESULTS}/evals/{{run}}.json",
    output:
        f"{RESULTS}/selections/{{run}}.json",
    log:
        f"{RESULTS}/logs/select/{{run}}.log",
    wildcard_constraints:
        run="unlearn-.+",
    conda:
        "../envs/analysis.yaml"
    params:
        budgets=STUDY.retain_budgets,
        rule=STUDY.selection.rule,
        scorings=STUDY.selection.scorings,
        code=code_version("select"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt select \
            --original {input.original:q} \
            --unlearned {input.unlearned:q} \
            --budgets {params.budgets} \
            --rule {params.rule} \
            --scorings {params.scorings} \
            --out {output:q}
        """
