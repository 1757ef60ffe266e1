"""Check models' folders without torch: the Snakefile does so before any job with those that a study names."""

import json
import math
import socket
from pathlib import Path

from rtt.errors import UserError
from rtt.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# What two models share when the weights of one fit into the other: keys of config.json, with the names that some
# architectures have for them.
SHAPE = {
    "model_type": (),
    "vocab_size": (),
    "hidden_size": ("n_embd", "d_model", "n_embed"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size"),
    "tie_word_embeddings": (),
}


TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.jinja")
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What decides how a LoRA adapter is added to the weights. Of the other keys, some speak of training alone; one that is
# set and stands in neither list is refused.
ADAPTER_KEYS = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "fan_in_fan_out", "bias", "use_rslora", "use_dora",
    "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "lora_bias",
    "target_parameters", "trainable_token_indices",
)  # fmt: skip
OF_TRAINING = (
    "peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "init_lora_weights", "runtime_config", "megatron_core", "qalora_group_size", "eva_config",
)  # fmt: skip
# Of init_lora_weights: those that leave the base model's weights as they are.
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def is_adapter(folder: str | Path) -> bool:
    """Return whether a folder holds a peft adapter rather than a model."""
    return (Path(folder) / ADAPTER).is_file()


def adapter_settings(folder: str | Path) -> tuple[dict, dict]:
    """Return an adapter's config, and those of its keys that decide how it is added to the weights.

    Raises UserError for another kind of adapter than LoRA, and for what cannot be merged from its file alone.
    """
    path = Path(folder) / ADAPTER
    config = _mapping(path)
    merge = "merge it yourself (peft: merge_and_unload, save_pretrained), and name the whole model"
    if config.get("peft_type") != "LORA":
        raise UserError(f"{path}: peft_type: found {config.get('peft_type')!r}, expected LORA; {merge}")
    if config.get("init_lora_weights") not in PLAIN_STARTS:
        start = config["init_lora_weights"]
        raise UserError(f"{path}: init_lora_weights: {start!r} also changes the base model's weights; {merge}")
    odd = [key for key, value in config.items() if value and key not in (*ADAPTER_KEYS, *OF_TRAINING)]
    if odd:
        raise UserError(f"{path}: {odd[0]}: an adapter with this key is not merged here; {merge}")
    return config, {key: config[key] for key in ADAPTER_KEYS if config.get(key) is not None}


def check_adapter(folder: str | Path) -> None:
    """Raise UserError for an adapter that is not merged here, or whose weights are missing or pickled."""
    adapter_settings(folder)
    if (Path(folder) / ADAPTER_WEIGHTS).is_file():
        return
    if found := sorted(path.name for path in Path(folder).glob("*.bin")):
        raise UserError(
            f"{folder}: found {', '.join(found)} but no {ADAPTER_WEIGHTS}: pickled weights can run code and are not "
            "read; save the adapter with safe_serialization=True"
        )
    raise UserError(f"{folder}: {ADAPTER_WEIGHTS} is missing: an adapter's folder holds it and {ADAPTER}")


def weight_files(folder: str | Path) -> list[Path]:
    """Return a model folder's safetensors files, in the order of their names.

    Raises UserError when there are none, when a shard is missing, when all are .bin files, which can hold code, and for
    an adapter.
    """
    folder = Path(folder)
    if is_adapter(folder):
        raise UserError(
            f"{folder}: a LoRA adapter ({ADAPTER}), no whole model; it can be one of external_models. Otherwise merge "
            "it first (peft: merge_and_unload, save_pretrained)"
        )
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
        weight_map = _mapping(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise UserError(f"{folder / INDEX}: weight_map: expected tensors with the shards that hold them")
        shards = sorted(set(weight_map.values()))
        if missing := [name for name in shards if Path(name).name != name or not (folder / name).is_file()]:
            raise UserError(f"{folder}: {INDEX} names shards that are not there: {', '.join(missing)}; copy it again")
        return [folder / name for name in shards]
    if found := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)):
        raise UserError(
            f"{folder}: found {', '.join(found)} but no {WEIGHTS}: pickled weights can run code and are not read; "
            "convert them to safetensors (transformers: save_pretrained)"
        )
    raise UserError(
        f"{folder}: no model here ({WEIGHTS} is missing); a model's folder holds what save_pretrained writes"
    )


def two_sets(folder: str | Path) -> str | None:
    """Return a note on a folder that holds its weights twice, as one file and as shards; None for any other."""
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return None
    named = _mapping(folder / INDEX).get("weight_map")
    shards = sorted({name for name in named.values() if isinstance(name, str)}) if isinstance(named, dict) else []
    there = [name for name in shards if name != WEIGHTS and Path(name).name == name and (folder / name).is_file()]
    if not there:
        return None
    return (
        f"note: {folder} holds {WEIGHTS}, and {len(there)} shards that {INDEX} names ({there[0]}, ...): {WEIGHTS} is "
        "read, as transformers does; delete what is not meant if the two differ"
    )


def check_folder(folder: str | Path, tokenizer: bool = True) -> list[Path]:
    """Return the folder's `weight_files`.

    Raises UserError for a folder without config.json (and, with `tokenizer`, tokenizer_config.json), and for a config
    that asks to run code of its own.
    """
    files = weight_files(folder)
    for name in ("config.json", "tokenizer_config.json"):
        path = Path(folder) / name
        if not path.is_file() and (tokenizer or name == "config.json"):
            advice = "" if name == "config.json" else "; copy the tokenizer's files from the model that it began as"
            raise UserError(f"{path}: missing: a model folder holds config.json, tokenizer files and {WEIGHTS}{advice}")
        if path.is_file() and _mapping(path).get("auto_map"):
            raise UserError(
                f"{path}: auto_map: this model brings Python code of its own, which is never run here; "
                "use a model that transformers knows itself"
            )
    _check_attention(Path(folder) / "config.json")
    depth(folder)
    return files


def _check_attention(path: Path) -> None:
    """Raise UserError for values that transformers takes unchecked, and then fails, or lets tokens see no other."""
    config = _mapping(path)
    for part in (config, config.get("text_config")):
        if not isinstance(part, dict):
            continue
        if not isinstance(part.get("is_causal"), bool | None):
            raise UserError(f"{path}: is_causal: found {part['is_causal']!r:.60}, expected true or false")
        window = part.get("sliding_window")
        if isinstance(window, int | float) and window < 1 and part.get("use_sliding_window") is not False:
            raise UserError(
                f"{path}: sliding_window: found {window!r:.60}, expected a number of tokens from 1, or null for none"
            )


def _mapping(path: Path) -> dict:
    """Return what a JSON file holds. Raises UserError unless these are keys and values."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected keys and values, found {type(found).__name__}; copy or download it again")
    return found


def shape(folder: str | Path) -> dict:
    """Return the SHAPE keys that a folder's config.json has; of a multimodal model those of its text part."""
    config = _mapping(Path(folder) / "config.json")
    inner = config.get("text_config")
    config = inner if isinstance(inner, dict) else config
    found = {key: next((config[name] for name in (key, *more) if name in config), None) for key, more in SHAPE.items()}
    return {key: value for key, value in found.items() if value is not None}


def key_width(folder: str | Path) -> int | None:
    """Return the width of keys and of values that a folder's config.json gives; None where it gives none."""
    config = _mapping(Path(folder) / "config.json")
    config = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    heads, groups, hidden = (config.get(k) for k in ("num_attention_heads", "num_key_value_heads", "hidden_size"))
    numbers = [value for value in (heads, groups, hidden) if type(value) is int and value > 0]
    return groups * (config.get("head_dim") or hidden // heads) if len(numbers) == 3 else None


DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
MOST_LAYERS = 1000
MOST_HEADER = 100_000_000  # bytes, safetensors' own limit


def depth(folder: str | Path) -> int | None:
    """Return the number of decoder layers that a folder's config.json gives, None where it gives none.

    Raises UserError for what is no number of layers.
    """
    path = Path(folder) / "config.json"
    config = _mapping(path)
    for part in (config, config.get("text_config")):
        for key in DEPTH if isinstance(part, dict) else ():
            if (found := part.get(key)) is None:
                continue
            if type(found) is not int or not 1 <= found <= MOST_LAYERS:
                raise UserError(f"{path}: {key}: found {found!r:.60}, expected a number of layers, 1 to {MOST_LAYERS}")
            return found
    return None


def count_weights(folder: str | Path) -> int:
    """Return how many weights a folder's files hold, from their headers alone. Raises UserError for a damaged one."""
    found = 0
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), MOST_HEADER)))
            found += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise UserError(f"{path}: no safetensors header ({error}); copy or download it again") from None
    return found


def tokenizer_files(folder: str | Path) -> list[Path]:
    """Return a folder's tokenizer files. Raises UserError when there are none."""
    found = {path for pattern in TOKENIZER_FILES for path in Path(folder).glob(pattern) if path.is_file()}
    if not found:
        raise UserError(f"{folder}: no tokenizer files in this folder; expected tokenizer.json and others")
    return sorted(found)


def check_unlearned(folder: str | Path, original: dict) -> None:
    """Raise UserError for a folder that holds no model, or no model that can be `original` after unlearning.

    `original` holds its SHAPE keys, as far as they are known. The folder needs no tokenizer: the original's is used.
    """
    if not Path(folder).is_dir():
        raise UserError(
            f"{folder}: no such folder; expected one with config.json and {WEIGHTS}, as save_pretrained writes"
        )
    if is_adapter(folder):
        check_adapter(folder)
        return
    check_folder(folder, tokenizer=False)
    found = shape(folder)
    for key in SHAPE:
        if key in found and found[key] != original.get(key, found[key]):
            raise UserError(
                f"{Path(folder) / 'config.json'}: {key} is {found[key]!r}, the original's is {original[key]!r}; "
                "name the model that it was unlearned from as the study's model"
            )
