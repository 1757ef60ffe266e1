"""Attack checkpoints, to bring facts back.

Inputs: original models, the chosen weights of each method with their point choices, canonical facts.
Outputs: evals/<run>/<target>.json (kind attacked), one per checkpoint: the original, each method at each retain budget,
or the control. One process attacks all checkpoints of an arm, since importing torch takes longer than attacking a
miniature, and attacks that train nothing share it; with `attack_jobs: method` it attacks those of one method.
"""

ATTACK_JOBS = RUNS.attack_jobs()


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
        run=alternatives([job[0].run_id for job in ATTACK_JOBS if len(job) == 1]),
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


# A rule each, since what a rule writes can be no function.
for number, job in enumerate([job for job in ATTACK_JOBS if len(job) > 1], 1):

    rule:
        """Attack all checkpoints of one arm by several attacks that train nothing."""
        name:
            f"attacks_{number}"
        input:
            source=model_folder(job[0].source.weights),
            facts=facts_file(job[0].facts),
            shots=[facts_file(one.learn) for one in [job[0].shots] if one],
            retain=[facts_file(one.learn) for one in [spec.retain for spec in job if spec.retain][:1]],
            chosen=[model_folder(spec) for spec in job[0].point_choices],
            point_choices=[point_choice_file(spec) for spec in job[0].point_choices],
        output:
            evals=[directory(f"{RESULTS}/evals/{spec.run_id}") for spec in job],
            manifests=[f"{RESULTS}/manifests/{spec.run_id}.json" for spec in job],
        log:
            f"{RESULTS}/logs/attack/{job[0].run_id}-and-{len(job) - 1}-more.log",
        priority: 20
        conda:
            TORCH_ENVIRONMENT
        threads: STUDY.threads
        resources:
            **NEEDS.together(job),
        params:
            spec=f"{RESULTS}/specs/{job[0].run_id}.json",
            also=[f"{RESULTS}/specs/{spec.run_id}.json" for spec in job[1:]],
            code=[code_version("attack", spec.attack) for spec in job],
            state=f"{RESULTS}/state/{job[0].run_id}",
        shell:
            """
            exec &> >(tee {log:q})
            $LAUNCH attack \
                --spec {params.spec:q} \
                --also {params.also:q} \
                --source {input.source:q} \
                --facts {input.facts:q} \
                --chosen {input.chosen:q} \
                --point-choices {input.point_choices:q} \
                --shots {input.shots:q} \
                --retain {input.retain:q} \
                --evals {output.evals[0]:q} \
                --manifest {output.manifests[0]:q} \
                --state {params.state:q}
            """
