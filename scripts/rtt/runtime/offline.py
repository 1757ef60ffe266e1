"""Steps ask no hub: what comes from the network is fetched ahead of them (`snakemake fetch`). No torch."""

import os

# The switches of huggingface_hub, datasets and transformers; read when these are imported.
SWITCHES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
ONLINE = ("fetch", "import", "unpack", "run", "doctor")  # commands that may; `run` and `doctor` only pass the rest on


def shut(command: str | None) -> None:
    """Switch hub access off for this process and its children, unless `command` is one of ONLINE."""
    if command not in ONLINE:
        os.environ.update(dict.fromkeys(SWITCHES, "1"))
