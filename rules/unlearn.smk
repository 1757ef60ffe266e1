"""Unlearn, and choose the points that are attacked.

Inputs: an original model with its evaluation, canonical facts.
Outputs of a trajectory: models/<run>/step-<n>.safetensors of the points that a retain budget may choose,
evals/<run>.json (kind unlearned). Outputs of a method's point choice: point_choices/<run>.json,
models/<run>/b<percent>.safetensors.
"""

CHOICE_OF = {spec.run_id: choice for choice in RUNS.choices.values() for spec in choice.trajectories}


rule unlearn:
    """Unlearn along one trajectory."""
    input:
        unpack(lambda wildcards: retain_files(RUNS.unlearn[wildcards.run].source)),
        source=lambda wildcards: model_folder(RUNS.unlearn[wildcards.run].source.weights),
        original=lambda wildcards: eval_file(RUNS.unlearn[wildcards.run].source.run_id),
        facts=lambda wildcards: facts_file(RUNS.unlearn[wildcards.run].source.facts),
        texts=lambda wildcards: [texts_file(texts) for texts in RUNS.unlearn[wildcards.run].texts],
        external=lambda wildcards: fetched_model(RUNS.unlearn[wildcards.run].settings),
    output:
        points=weights(f"{RESULTS}/models/{{run}}"),
        eval=f"{RESULTS}/evals/{{run}}.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/unlearn/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.unlearn),
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.unlearn),
    params:
        spec=spec_file,
        group=lambda wildcards: CHOICE_OF[wildcards.run].run_id,
        siblings=lambda wildcards: [
            model_folder(spec) for spec in CHOICE_OF[wildcards.run].trajectories if spec.run_id != wildcards.run
        ],
        code=lambda wildcards: code_version("unlearn", RUNS.unlearn[wildcards.run].method),
        state=state_folder,
    shell:
        """
        exec &> >(tee {log:q})
        $LAUNCH unlearn \
            --spec {params.spec:q} \
            --source {input.source:q} \
            --original {input.original:q} \
            --facts {input.facts:q} \
            --texts {input.texts:q} \
            --external {input.external:q} \
            --retain {input.retain:q} \
            --held-out {input.held_out:q} \
            --points {output.points:q} \
            --group {params.group:q} \
            --siblings {params.siblings:q} \
            --eval {output.eval:q} \
            --manifest {output.manifest:q} \
            --state {params.state:q}
        """


rule choose:
    """Choose a point per retain budget."""
    input:
        original=lambda wildcards: eval_file(RUNS.choices[wildcards.run].source.run_id),
        unlearned=lambda wildcards: [eval_file(spec.run_id) for spec in RUNS.choices[wildcards.run].trajectories],
        points=lambda wildcards: [model_folder(spec) for spec in RUNS.choices[wildcards.run].trajectories],
    output:
        point_choice=f"{RESULTS}/point_choices/{{run}}.json",
        chosen=weights(f"{RESULTS}/models/{{run}}"),
    log:
        f"{RESULTS}/logs/choose/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.choices),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec_file,
        code=code_version("choose"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt choose \
            --spec {params.spec:q} \
            --original {input.original:q} \
            --unlearned {input.unlearned:q} \
            --points {input.points:q} \
            --out {output.point_choice:q} \
            --chosen {output.chosen:q}
        """
