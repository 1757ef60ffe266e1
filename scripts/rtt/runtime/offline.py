"""Cut steps off from hubs: what comes from the network is fetched before them (`snakemake fetch`). No torch."""

import os

# The switches of huggingface_hub, datasets and transformers, which these read when they are imported.
SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
ONLINE = (
    "fetch",
    "convert",
    "import",
    "unpack",
    "run",
    "doctor",
    "verdict",
)  # commands with access; `run` and `doctor` only start others, and `verdict` asks the hub about a model's size


def shut(command: str | None) -> None:
    """Switch off hub access for this process and its children, unless `command` is one of ONLINE."""
    if command not in ONLINE:
        os.environ.update(dict.fromkeys(SWITCHES, "1"))
