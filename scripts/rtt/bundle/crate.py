"""ro-crate-metadata.json, which describes a bundle as a Workflow Run RO-Crate 0.5.

Profile: https://w3id.org/ro/wfrun/workflow/0.5. The metadata is made with `rocrate` and written with sorted keys, so
that the same files give the same bytes.
"""

import json
from pathlib import PurePosixPath

from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from rtt import __version__
from rtt.bundle.layout import DERIVED, INDEX, Index

PROFILES = (
    ("https://w3id.org/ro/wfrun/process/0.5", "Process Run Crate", "0.5"),
    ("https://w3id.org/ro/wfrun/workflow/0.5", "Workflow Run Crate", "0.5"),
    ("https://w3id.org/workflowhub/workflow-ro-crate/1.0", "Workflow RO-Crate", "1.0"),
)
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
SNAKEMAKE = "https://w3id.org/workflowhub/workflow-ro-crate#snakemake"
MIT = "https://spdx.org/licenses/MIT"
WORKFLOW = "workflow/Snakefile"
ENCODINGS = {
    ".json": "application/json", ".jsonl": "application/jsonl", ".csv": "text/csv", ".tsv": "text/tab-separated-values",
    ".svg": "image/svg+xml", ".png": "image/png", ".html": "text/html", ".md": "text/markdown",
    ".yaml": "application/yaml", "": "text/plain", ".smk": "text/plain",
}  # fmt: skip
FOLDERS = {
    "evals": "scores of every question by one model", "point_choices": "the points chosen within retain budgets",
    "data": "audit of a dataset", "manifests": "what one process used and cost", "specs": "all that decides a run",
    "tables": "table made from the scores", "figures": "figure drawn from the tables",
}  # fmt: skip
# The description of the bundle and that of the run: of a study with attacks, and of one without.
ATTACKED = (
    "Recovery of unlearned facts by attacks: {} evaluations, and the tables, figures and report made from them.",
    "Train, unlearn, attack, score; then make tables, figures and report.",
)
NOT_ATTACKED = (
    "Accuracies of models that nobody attacked: {} evaluations, and the tables made from them.",
    "Train, unlearn, score; then make tables.",
)


def metadata(index: Index, date: str, commits: list[str]) -> str:
    """Return the metadata as text.

    `date` is that of the newest run (ISO 8601); `commits` are those that the manifests name.
    """
    study, files = index.study, index.files
    claim, does = ATTACKED if index.shown else NOT_ATTACKED
    crate = ROCrate(version="1.1")
    root = crate.root_dataset
    for uri, name, version in PROFILES:
        crate.add(ContextEntity(crate, uri, {"@type": "CreativeWork", "name": name, "version": version}))
    root["conformsTo"] = [{"@id": uri} for uri, _, _ in PROFILES]
    crate.metadata["conformsTo"] = [{"@id": "https://w3id.org/ro/crate/1.1"}, {"@id": PROFILES[2][0]}]
    root["name"] = f"Unlearning RTT: study {study}"
    root["description"] = claim.format(len(index.below("evals"))) + " Redraw: make figures ARTIFACTS=<this file>."
    root["datePublished"] = date
    licence = {"@type": "CreativeWork", "name": "MIT License", "identifier": MIT,
               "description": "Code and results. Licences of external data: licences.tsv."}  # fmt: skip
    root["license"] = crate.add(ContextEntity(crate, MIT, licence))
    site = {"@id": "https://snakemake.github.io"}
    language = {"@type": "ComputerLanguage", "name": "Snakemake", "alternateName": "Snakemake", "identifier": site,
                "url": site}  # fmt: skip
    crate.add(ContextEntity(crate, SNAKEMAKE, language))
    base = f"results/{study}/"
    entities = {}
    for name, entry in files.items():
        properties = {"name": PurePosixPath(name).name, "contentSize": str(entry.bytes), "sha256": entry.sha256}
        properties["encodingFormat"] = ENCODINGS.get(PurePosixPath(name).suffix, "application/octet-stream")
        if text := FOLDERS.get(name.removeprefix(base).split("/")[0]):
            properties["description"] = text
        if name == "README.md":
            properties["about"] = {"@id": "./"}
        if name == WORKFLOW:
            properties |= {
                "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
                "name": "Unlearning RTT",
                "conformsTo": {"@id": BIOSCHEMAS},
                "programmingLanguage": {"@id": SNAKEMAKE},
                "license": {"@id": MIT},
                "version": ", ".join(commits) or __version__,
            }
        entities[name] = crate.add_file(dest_path=name, properties=properties)
    index = {"name": INDEX, "encodingFormat": "application/json", "description": "bytes and sha256 of every file"}
    crate.add_file(dest_path=INDEX, properties=index)
    root["mainEntity"] = entities[WORKFLOW]
    made = [one for name, one in entities.items() if name.removeprefix(base).split("/")[0] in DERIVED]
    scores = [one for name, one in entities.items() if name.startswith(f"{base}evals/")]
    action = ContextEntity(
        crate,
        "#run",
        {
            "@type": "CreateAction",
            "name": f"Run of study {study}",
            "description": does,
            "endTime": date,
            "actionStatus": "http://schema.org/CompletedActionStatus",
            "instrument": entities[WORKFLOW],
            "object": entities[f"{base}study.yaml"],
            "result": [*scores, *made],
        },
    )
    root["mentions"] = crate.add(action)
    document = crate.metadata.generate()
    document["@graph"].sort(key=lambda entity: entity["@id"])
    terms = document["@context"] if isinstance(document["@context"], list) else [document["@context"]]
    document["@context"] = [*terms, {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"}]
    return json.dumps(document, sort_keys=True, ensure_ascii=False, indent=1) + "\n"
