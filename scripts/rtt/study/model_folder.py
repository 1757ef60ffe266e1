"""Check models' folders without torch: the Snakefile does so before any job with those that a study names."""

import socket
from pathlib import Path

from rtt.errors import UserError
from rtt.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What two models share when the weights of one fit into the other; keys of config.json.
SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size", "tie_word_embeddings")


def weight_files(folder: str | Path) -> list[Path]:
    """Return a model folder's safetensors files, in the order of their names.

    Raises UserError when there are none, when a shard is missing, or when all are .bin files, which can hold code.
    """
    folder = Path(folder)
    for path in sorted(folder.glob("*")):  # an imported model is a folder of links
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{path}: a link to {path.readlink()}, which is not there on {socket.gethostname()}. The model lies "
                "where this machine can't see it, or was deleted: fetch it to a file system that all nodes share (set "
                f"HF_HOME, delete {folder}, `snakemake fetch`; docs/hpc.md)"
            )
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        shards = sorted(set(read_json(folder / INDEX).get("weight_map", {}).values()))
        if missing := [name for name in shards if Path(name).name != name or not (folder / name).is_file()]:
            raise UserError(f"{folder}: {INDEX} names shards that are not there: {', '.join(missing)}; copy it again")
        return [folder / name for name in shards]
    if found := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)):
        raise UserError(
            f"{folder}: found {', '.join(found)} but no {WEIGHTS}: pickled weights can run code and are not read; "
            "convert them to safetensors (transformers: save_pretrained)"
        )
    raise UserError(f"{folder}: no model here ({WEIGHTS} is missing); run the step that makes it first")


def check_folder(folder: str | Path, tokenizer: bool = True) -> list[Path]:
    """Return the folder's `weight_files`.

    Raises UserError for a folder without config.json (and, with `tokenizer`, tokenizer_config.json), and for a config
    that asks to run code of its own.
    """
    files = weight_files(folder)
    for name in ("config.json", "tokenizer_config.json"):
        path = Path(folder) / name
        if not path.is_file() and (tokenizer or name == "config.json"):
            raise UserError(f"{path}: missing: a model folder holds config.json, tokenizer files and {WEIGHTS}")
        if path.is_file() and read_json(path).get("auto_map"):
            raise UserError(
                f"{path}: auto_map: this model brings Python code of its own, which is never run here; "
                "use a model that transformers knows itself"
            )
    return files


def shape(folder: str | Path) -> dict:
    """Return the SHAPE keys that a folder's config.json has."""
    config = read_json(Path(folder) / "config.json")
    return {key: config[key] for key in SHAPE if key in config}


def check_unlearned(folder: str | Path, original: dict) -> None:
    """Raise UserError for a folder that holds no model, or no model that can be `original` after unlearning.

    `original` holds its SHAPE keys, as far as they are known. The folder needs no tokenizer: the original's is used.
    """
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder}: no such folder; expected one with config.json and {WEIGHTS}, as save_pretrained writes"
        )
    if (Path(folder) / "adapter_config.json").is_file():
        raise UserError(
            f"{folder}: an adapter, no whole model; merge it first (peft: merge_and_unload, save_pretrained)"
        )
    check_folder(folder, tokenizer=False)
    found = shape(folder)
    for key in SHAPE:
        if key in found and found[key] != original.get(key, found[key]):
            raise UserError(
                f"{Path(folder) / 'config.json'}: {key} is {found[key]!r}, the original's is {original[key]!r}; "
                "name the model that it was unlearned from as the study's model"
            )
