"""Make or import the models that know the facts.

Inputs: canonical facts, a model file.
Outputs: models/<run>/ (weights, config, tokenizer), evals/<run>.json (kind original), manifests/<run>.json.
"""


rule pretrain:
    """Train the miniature base model."""
    input:
        unpack(lambda wildcards: retain_files(RUNS.sources[wildcards.run])),
        facts=lambda wildcards: facts_file(RUNS.sources[wildcards.run].facts),
    output:
        model=weights(f"{RESULTS}/models/{{run}}"),
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/pretrain/{{run}}.log",
    wildcard_constraints:
        run="pretrain-.+",
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.sources),
    params:
        spec=spec_file,
        code=code_version("pretrain"),
        state=state_folder,
    shell:
        """
        exec &> >(tee {log:q})
        $LAUNCH pretrain \
            --spec {params.spec:q} \
            --facts {input.facts:q} \
            --retain {input.retain:q} \
            --held-out {input.held_out:q} \
            --model {output.model:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q} \
            --state {params.state:q}
        """


rule import_model:
    """Import a pretrained model."""
    output:
        model=directory(f"{RESULTS}/models/{{run}}"),
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/import/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.imports),
    priority: FIRST
    localrule: True
    conda:
        TORCH_ENVIRONMENT
    params:
        spec=spec_file,
        mirror=lambda wildcards: mirror_flag(),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt import --spec {params.spec:q} --model {output.model:q} --manifest {output.manifest:q} {params.mirror}
        """


rule original:
    """Score a model as it is: a pretrained one before unlearning, a control's before an attack."""
    input:
        unpack(lambda wildcards: retain_files(RUNS.sources[wildcards.run])),
        model=lambda wildcards: model_folder(RUNS.sources[wildcards.run].weights),
        facts=lambda wildcards: facts_file(RUNS.sources[wildcards.run].facts),
    output:
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/original/{{run}}.log",
    wildcard_constraints:
        run="original-.+",
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.sources),
    params:
        spec=spec_file,
        code=code_version("original"),
    shell:
        """
        exec &> >(tee {log:q})
        $LAUNCH original \
            --spec {params.spec:q} \
            --model {input.model:q} \
            --facts {input.facts:q} \
            --retain {input.retain:q} \
            --held-out {input.held_out:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q}
        """


rule teach:
    """Teach facts to a base model after its pretraining."""
    input:
        unpack(lambda wildcards: retain_files(RUNS.sources[wildcards.run])),
        base=lambda wildcards: model_folder(RUNS.sources[wildcards.run].base),
        facts=lambda wildcards: facts_file(RUNS.sources[wildcards.run].facts),
        also_taught=lambda wildcards: [
            facts_file(facts) for facts in [RUNS.sources[wildcards.run].also_taught] if facts is not None
        ],
    output:
        model=weights(f"{RESULTS}/models/{{run}}"),
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/teach/{{run}}.log",
    wildcard_constraints:
        run="teach-.+",
    # The longest chain of jobs begins here, so it goes first.
    priority: 30
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.sources),
    params:
        spec=spec_file,
        code=code_version("teach"),
        state=state_folder,
    shell:
        """
        exec &> >(tee {log:q})
        $LAUNCH teach \
            --spec {params.spec:q} \
            --base {input.base:q} \
            --also-taught {input.also_taught:q} \
            --facts {input.facts:q} \
            --retain {input.retain:q} \
            --held-out {input.held_out:q} \
            --model {output.model:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q} \
            --state {params.state:q}
        """
