"""Facts.

Inputs: the generator's options and seed, from the study.
Outputs: data/<dataset>/raw/*.jsonl (the authors' schema), facts.jsonl (canonical), audit.json.
"""


rule generate:
    """Generate facts."""
    output:
        directory(f"{RESULTS}/data/{{data}}/raw"),
    log:
        f"{RESULTS}/logs/generate/{{data}}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        spec=spec_file,
        code=code_version("generate"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt generate --spec {params.spec:q} --out {output:q}
        """


rule facts:
    """Read and audit facts."""
    input:
        f"{RESULTS}/data/{{data}}/raw",
    output:
        facts=f"{RESULTS}/data/{{data}}/facts.jsonl",
        audit=f"{RESULTS}/data/{{data}}/audit.json",
    log:
        f"{RESULTS}/logs/facts/{{data}}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        dataset=lambda wildcards: RUNS.data[wildcards.data].dataset,
        seed=lambda wildcards: RUNS.data[wildcards.data].seed,
        policy=",".join(f"{kind}={action}" for kind, action in STUDY.data.policy.model_dump().items()),
        code=code_version("facts"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt facts {input:q} \
            --dataset {params.dataset:q} \
            --on-defect {params.policy:q} \
            --seed {params.seed} \
            --out {output.facts:q} \
            --audit {output.audit:q}
        """
