"""Attack checkpoints, to bring facts back.

Inputs: original models, the chosen weights of each method with their point choices, canonical facts.
Outputs: evals/<run>/<target>.json (kind attacked), one per checkpoint: the original, each method at each retain budget,
or the control. One process attacks all checkpoints of an arm, since importing torch takes longer than attacking a
miniature; with `attack_jobs: method` it attacks those of one method.
"""


rule attack:
    """Attack all checkpoints of one run."""
    input:
        source=lambda wildcards: model_folder(attack_of(wildcards).source.weights),
        facts=lambda wildcards: facts_file(attack_of(wildcards).facts),
        shots=lambda wildcards: [facts_file(one.learn) for one in [attack_of(wildcards).shots] if one],
        retain=lambda wildcards: [facts_file(one.learn) for one in [attack_of(wildcards).retain] if one],
        chosen=lambda wildcards: [model_folder(spec) for spec in attack_of(wildcards).point_choices],
        point_choices=lambda wildcards: [point_choice_file(spec) for spec in attack_of(wildcards).point_choices],
    output:
        evals=directory(f"{RESULTS}/evals/{{run}}"),
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/attack/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.attacks),
    # Long jobs go first, so that no core waits for them at the end.
    priority: 20
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.attacks),
    params:
        spec=spec_file,
        code=lambda wildcards: code_version("attack", attack_of(wildcards).attack),
        state=state_folder,
    shell:
        """
        exec &> >(tee {log:q})
        $LAUNCH attack \
            --spec {params.spec:q} \
            --source {input.source:q} \
            --facts {input.facts:q} \
            --chosen {input.chosen:q} \
            --point-choices {input.point_choices:q} \
            --shots {input.shots:q} \
            --retain {input.retain:q} \
            --evals {output.evals:q} \
            --manifest {output.manifest:q} \
            --state {params.state:q}
        """
