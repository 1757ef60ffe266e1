"""Models that know the facts.

Inputs: canonical facts.
Outputs: models/<run>/ (weights, config, tokenizer), evals/<run>.json (kind original), manifests/<run>.json.
"""


rule pretrain:
    """Train the base model."""
    input:
        facts=lambda wildcards: facts_file(RUNS.sources[wildcards.run].facts),
        retain=lambda wildcards: facts_file(RUNS.sources[wildcards.run].retain),
    output:
        model=weights(f"{RESULTS}/models/{{run}}"),
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/pretrain/{{run}}.log",
    wildcard_constraints:
        run="pretrain-.+",
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec_file,
        code=code_version("pretrain"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt pretrain \
            --spec {params.spec:q} \
            --facts {input.facts:q} \
            --retain {input.retain:q} \
            --model {output.model:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q}
        """


rule teach:
    """Teach facts later."""
    input:
        base=lambda wildcards: model_folder(RUNS.sources[wildcards.run].base),
        facts=lambda wildcards: facts_file(RUNS.sources[wildcards.run].facts),
        retain=lambda wildcards: facts_file(RUNS.sources[wildcards.run].retain),
    output:
        model=weights(f"{RESULTS}/models/{{run}}"),
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/teach/{{run}}.log",
    wildcard_constraints:
        run="teach-.+",
    # The longest chain of jobs begins here.
    priority: 30
    conda:
        "../envs/cpu.yaml"
    params:
        spec=spec_file,
        code=code_version("teach"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt teach \
            --spec {params.spec:q} \
            --base {input.base:q} \
            --facts {input.facts:q} \
            --retain {input.retain:q} \
            --model {output.model:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q}
        """
