"""RTT, retraining on T: the attack.

Inputs: original models, the chosen weights of each method with their point_choices, canonical facts.
Outputs: evals/<run>.<target>.json (kind rtt), one per checkpoint: the original, each method at each retain budget; the control.
One process attacks all checkpoints of an arm, since importing torch costs more than attacking a miniature; or, with
`attack_jobs: method`, those of one method.
"""

BUDGETS = [budget_name(budget) for budget in STUDY.retain_budgets]
NAMES = [*STUDY.methods.named, *STUDY.external_models]
TARGETS = (
    BUDGETS
    if STUDY.attack_jobs == "method"
    else ["original"] + [target_name(method, budget) for method in NAMES for budget in STUDY.retain_budgets]
)


rule rtt:
    """RTT on unlearned checkpoints."""
    input:
        source=lambda wildcards: model_folder(RUNS.attacks[wildcards.run].source.weights),
        facts=lambda wildcards: facts_file(RUNS.attacks[wildcards.run].facts),
        chosen=lambda wildcards: [model_folder(spec) for spec in RUNS.attacks[wildcards.run].point_choices],
        point_choices=lambda wildcards: [
            f"{RESULTS}/point_choices/{spec.run_id}.json" for spec in RUNS.attacks[wildcards.run].point_choices
        ],
    output:
        evals=expand(f"{RESULTS}/evals/{{{{run}}}}.{{target}}.json", target=TARGETS),
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/rtt/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.attacks),
    # Long jobs first, so that the cores end together.
    priority: 20
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.attacks),
    params:
        spec=spec_file,
        code=code_version("attack"),
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
            --evals {output.evals:q} \
            --manifest {output.manifest:q} \
            --state {params.state:q}
        """


rule rtt_control:
    """RTT on a model that never saw the facts."""
    input:
        source=lambda wildcards: model_folder(RUNS.controls[wildcards.run].source.weights),
        facts=lambda wildcards: facts_file(RUNS.controls[wildcards.run].facts),
    output:
        evals=f"{RESULTS}/evals/{{run}}.control.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/rtt_control/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.controls),
    conda:
        TORCH_ENVIRONMENT
    threads: STUDY.threads
    resources:
        **NEEDS.of(RUNS.controls),
    params:
        spec=spec_file,
        code=code_version("attack"),
        state=state_folder,
    shell:
        """
        exec &> >(tee {log:q})
        $LAUNCH attack \
            --spec {params.spec:q} \
            --source {input.source:q} \
            --facts {input.facts:q} \
            --evals {output.evals:q} \
            --manifest {output.manifest:q} \
            --state {params.state:q}
        """


use rule rtt_control as rtt_original with:
    input:
        source=lambda wildcards: model_folder(RUNS.originals[wildcards.run].source.weights),
        facts=lambda wildcards: facts_file(RUNS.originals[wildcards.run].facts),
    output:
        evals=f"{RESULTS}/evals/{{run}}.original.json",
        manifest=f"{RESULTS}/manifests/{{run}}.json",
    log:
        f"{RESULTS}/logs/rtt_original/{{run}}.log",
    wildcard_constraints:
        run=alternatives(RUNS.originals),
    resources:
        **NEEDS.of(RUNS.originals),
