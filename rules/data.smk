"""Generate or fetch facts, and audit them.

Inputs: the generator's options and seed, or files, fetched or the user's own.
Outputs: data/<raw>/*.jsonl (the authors' schema), data/<dataset>/facts.jsonl (canonical) and audit.json; texts.jsonl.
"""

# Data come first, so that bad data stop a study before it trains.
FIRST = 100


rule generate:
    """Generate a dataset."""
    output:
        directory(f"{RESULTS}/data/{{raw}}"),
    log:
        f"{RESULTS}/logs/generate/{{raw}}.log",
    wildcard_constraints:
        raw=alternatives(name for name, raw in RUNS.raw.items() if not raw.files),
    priority: FIRST
    localrule: True
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


rule fetch_dataset:
    """Fetch and verify the authors' files."""
    output:
        directory("data/external/{group}-{digest}"),
    log:
        f"{RESULTS}/logs/fetch/{{group}}-{{digest}}.log",
    wildcard_constraints:
        group="years|mmlu|wmdp|random_birthdays",
        digest="[0-9a-f]{10}",
    priority: FIRST
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        mirror=lambda wildcards: mirror_flag(),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt fetch {wildcards.group:q} --out {output:q} {params.mirror}
        """


rule fetch_texts:
    """Fetch plain retain texts."""
    output:
        "data/external/{group}-{number}-{digest}/texts.jsonl",
    log:
        f"{RESULTS}/logs/fetch/{{group}}-{{number}}-{{digest}}.log",
    wildcard_constraints:
        group="wikitext|fineweb_edu|wmdp_[a-z_]+",
        number="[0-9]+",
        digest="[0-9a-f]{10}",
    priority: FIRST
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        mirror=lambda wildcards: mirror_flag(),
        folder=subpath(output[0], parent=True),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt fetch {wildcards.group:q} --texts {wildcards.number} --out {params.folder:q} {params.mirror}
        """


rule facts:
    """Read a dataset into canonical facts, and audit it."""
    input:
        # Snakemake takes braces for a wildcard. A folder of the user's own needs no rule: its digest is in the run's id.
        lambda wildcards: [folder for folder in [raw_folder(RUNS.data[wildcards.data].raw)] if "{" not in folder],
    output:
        facts=f"{RESULTS}/data/{{data}}/facts.jsonl",
        audit=f"{RESULTS}/data/{{data}}/audit.json",
    log:
        f"{RESULTS}/logs/facts/{{data}}.log",
    priority: FIRST
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        folder=lambda wildcards: raw_folder(RUNS.data[wildcards.data].raw),
        flags=lambda wildcards: facts_flags(RUNS.data[wildcards.data]),
        code=code_version("facts"),
    shell:
        """
        exec &> >(tee {log:q})
        python -m rtt facts {params.folder:q} {params.flags} --out {output.facts:q} --audit {output.audit:q}
        """
