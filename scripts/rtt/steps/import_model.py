"""Step `import`: turn a model file's model into a local folder (safetensors, config, tokenizer), whole or absent.

A hub model comes from the mirror (`<mirror>/<org>/<name>` or `<mirror>/<name>`), else from the hub's cache, else from
the hub. Local files are linked, not copied; a GGUF file is converted. Input: an ImportSpec. Outputs: the model's
folder, a manifest.
"""

import argparse
import copy
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub import HfApi, errors, snapshot_download
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from rtt import checksums, places
from rtt.depth import layer_number
from rtt.errors import UserError
from rtt.fetch.download import pip_download, unzip
from rtt.files import disk_errors, read_json, sha256, write_json
from rtt.models.architecture import language_model, mlp_outputs, text_config
from rtt.models.checkpoint import check_loaded, check_names, empty_model
from rtt.models.folders import whole_folder
from rtt.models.load import DTYPES, load, load_tokenizer, model_hash, read_model, save
from rtt.scoring.manifest import Manifest
from rtt.study.digests import folder_digest, remembered_sha256, tokenizer_digest
from rtt.study.model_file import Gguf, ModelFile
from rtt.study.model_folder import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    INDEX,
    TOKENIZER_FILES,
    check_adapter,
    check_folder,
    is_adapter,
    tokenizer_files,
    two_sets,
    weight_files,
)
from rtt.study.specs import load_spec

LOCK = places.OWN / "data" / "models.lock.json"
WANTED = ("*.json", "*.safetensors", "*.txt", "*.jinja", "tokenizer.model")
PROBE = "Question: In what year?\nA. 1905\nB. 1917\nAnswer: B. 1917"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `import`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument("--model", required=True, help="folder to write the model to")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--mirror", help="folder to search before any download")


def run(args: argparse.Namespace) -> int:
    """Import the spec's model, and write its manifest."""
    spec = load_spec(args.spec, "import")
    manifest = Manifest("import", spec)
    if spec.digest and folder_digest(spec.model.path) != spec.digest:
        raise UserError(f"{spec.model.path}: changed since the study was started; start it again")
    if spec.tokenizer_digest and tokenizer_digest(spec.model.tokenizer) != spec.tokenizer_digest:
        raise UserError(f"{spec.model.tokenizer}: changed since the study was started; start it again")
    if spec.external:
        where = import_external(spec.model, args.model, args.mirror)
        manifest.write(args.manifest, None, made=[args.model], source=where, sha256=checksums.recorded(args.model))
        return 0
    model, where = import_model(spec.model, args.model, args.mirror)
    manifest.write(args.manifest, model, made=[args.model], source=where, model_sha256=model_hash(args.model))
    return 0


def import_external(model: ModelFile, out: str | Path, mirror: str | Path | None = None, lock: Path = LOCK) -> str:
    """Make the folder `out` with links to an external model or an adapter; return where it came from.

    Raises UserError; then `out` is as it was before.
    """
    with disk_errors(out), whole_folder(Path(out)) as scratch:
        whole = scratch / "whole"
        folder, where = _folder(model, mirror, lock)
        if is_adapter(folder):
            check_adapter(folder)
            whole.mkdir()
            for name in (ADAPTER, ADAPTER_WEIGHTS):
                (whole / name).symlink_to((folder / name).resolve())
        else:
            link(folder, whole, tokenizer=False)
            with _named(whole, where):
                check_names(whole, empty_model(whole))
        checksums.record(whole, remembered_sha256)
    return where


@contextmanager
def _named(folder: Path, where: str) -> Iterator[None]:
    """Give a user's mistake the place that the user knows, not that of a temporary folder."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(folder), where)) from None


def import_model(model: ModelFile, out: str | Path, mirror: str | Path | None = None, lock: Path = LOCK):
    """Make the folder `out`; return (the model without weights, where it came from).

    Raises UserError; then `out` is as it was before.
    """
    out = Path(out)
    with disk_errors(out), whole_folder(out) as scratch:
        whole = scratch / "whole"
        if model.gguf:
            file, where = _gguf_file(model.gguf, mirror, scratch)
            convert(file, whole, model.dtype)
        else:
            folder, where = _folder(model, mirror, lock)
            link(folder, whole)
        if model.tokenizer:
            _other_tokenizer(Path(model.tokenizer), whole)
        empty = check(model, whole, where)
    return empty, where


def check(model: ModelFile, folder: Path, where: str):
    """Compare a folder with its model file; return the folder's model without weights (on the meta device).

    Of a multimodal model only the part that reads text is kept. Raises UserError for damaged weights, a model of
    another kind, or a difference.
    """
    check_folder(folder)
    with _named(folder, where):
        load_tokenizer(folder)
        empty = empty_model(folder, DTYPES[model.dtype])
        check_names(folder, empty)
        if language_model(empty) is not empty:
            only_text(folder, DTYPES[model.dtype])
            empty = empty_model(folder, DTYPES[model.dtype])
    config = text_config(empty.config)
    depth = config.num_hidden_layers
    found = {
        "layers": depth,
        "hidden": config.hidden_size,
        "parameters": sum(parameter.numel() for parameter in empty.parameters()),
    }
    for key, value in found.items():
        if getattr(model, key) not in (None, value):
            raise UserError(
                f"model {model.name}: {key}: the model file says {getattr(model, key)}, but {where} has {value}"
            )
    if model.rmu:
        layer_number(model.rmu.layer, depth)
        mlp_outputs(empty, [layer_number(layer, depth) for layer in model.rmu.trained])
    checksums.record(folder, remembered_sha256)
    if model.weights_sha256 and (found_hash := model_hash(folder)) != model.weights_sha256:
        raise UserError(f"{where}: weights_sha256: the model file says {model.weights_sha256}, found {found_hash}")
    return empty


def only_text(folder: Path, dtype: torch.dtype) -> None:
    """Replace a folder's multimodal model by its language model; the tokenizer stays."""
    part = language_model(read_model(folder, dtype))
    for path in {*weight_files(folder), *(folder / name for name in (INDEX, "config.json", "generation_config.json"))}:
        path.unlink(missing_ok=True)
    part.save_pretrained(folder)
    found = dict(read_model(folder, dtype).named_parameters())
    if not all(torch.equal(value, found[name]) for name, value in part.named_parameters()):
        raise UserError(f"{folder}: the text part alone has other weights than the whole model")


def link(source: Path, folder: Path, tokenizer: bool = True) -> None:
    """Make `folder` with links to a model's config, weights and tokenizer files.

    Raises UserError for pickled weights, for a model that brings code, and where `source` is no folder.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder; a model is a folder with config.json, tokenizer and safetensors")
    weights = check_folder(source, tokenizer)
    if note := two_sets(source):
        print(note, file=sys.stderr)
    folder.mkdir()
    others = {path for pattern in ("*.json", *TOKENIZER_FILES) for path in source.glob(pattern) if path.is_file()}
    for path in {*weights, *others} - {source / checksums.NAME}:
        (folder / path.name).symlink_to(path.resolve())


def _other_tokenizer(source: Path, folder: Path) -> None:
    """Replace the links to the tokenizer in `folder` by links to the one in `source`."""
    files = tokenizer_files(source)
    for pattern in TOKENIZER_FILES:
        for path in folder.glob(pattern):
            path.unlink()
    for path in files:
        (folder / path.name).symlink_to(path.resolve())


def _folder(model: ModelFile, mirror: str | Path | None, lock: Path) -> tuple[Path, str]:
    """Return (local folder, where it came from) of a model that is not a GGUF file, after downloading it if need be."""
    if model.path:
        return Path(model.path).expanduser(), model.path
    for name in (model.hub.id, model.hub.id.split("/")[1]) if mirror else ():
        if (Path(mirror) / name).is_dir():
            print(f"{model.name}: taken from {Path(mirror) / name}; its revision is not checked", file=sys.stderr)
            return Path(mirror) / name, str(Path(mirror) / name)
    revision = model.hub.revision or locked_revision(model.hub.id, lock)
    return _download(model, revision), f"hub:{model.hub.id}@{revision}"


def locked_revision(name: str, lock: Path = LOCK) -> str:
    """Return a hub model's revision from the lock file; the first time, ask the hub and write the answer there."""
    known = read_json(lock) if lock.is_file() else {}
    if name not in known:
        try:
            known[name] = HfApi().model_info(name).sha
        except (errors.HfHubHTTPError, errors.HTTPError, errors.OfflineModeIsEnabled) as error:
            raise _unavailable(name, name, error) from None
        write_json(lock, known)
        print(f"{name}: revision {known[name]} from now on ({lock})", file=sys.stderr)
    return known[name]


def _download(model: ModelFile, revision: str) -> Path:
    try:
        found = snapshot_download(
            model.hub.id, revision=revision, allow_patterns=list(WANTED), ignore_patterns=["original/*"]
        )
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.IncompleteSnapshotError,
        errors.HTTPError,
    ) as error:
        raise _unavailable(model.name, f"{model.hub.id} at revision {revision}", error, model.gated) from None
    return Path(found)


def _unavailable(name: str, what: str, error: Exception, gated: bool = False) -> UserError:
    """Return the error that says what to do about a hub model that could not be fetched."""
    terms = "accept its terms on its page on the hub, then log in there with `hf auth login` (or set HF_TOKEN)"
    where = "on a machine with internet: `snakemake fetch` on the login node; or put a folder of it into the mirror"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError) or (gated and status in (401, 403)):
        return UserError(f"model {name}: {what} is gated: {terms}, and fetch again {where}")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"model {name}: the hub has no {what}; correct hub.revision in the model file")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(f"model {name}: the hub has no {what}, or it is private: correct hub.id, or log in")
    hint = f"; it is gated: {terms}" if gated else ""
    return UserError(
        f"model {name}: {what} is not in the local cache, and the hub cannot be reached; get it {where}{hint}"
    )


def _gguf_file(gguf: Gguf, mirror: str | Path | None, scratch: Path) -> tuple[Path, str]:
    """Return (the GGUF file, its sha256 verified; where it came from)."""
    name = Path(gguf.file).name
    places = [folder / name for folder in _mirror_folders(mirror)]
    if not gguf.wheel:
        places.append(Path(gguf.file).expanduser())
    for path in places:
        if path.is_file():
            return _verified(path, gguf, str(path)), str(path)
    if not gguf.wheel:
        raise UserError(f"{gguf.file}: no such file (gguf.file)" + (f", nor in {mirror}" if mirror else ""))
    package, version = gguf.wheel.split("==")
    stem = re.sub(r"[-_.]+", "_", package)
    pattern = f"{stem}-{version}-*.whl"
    wheels = [wheel for folder in _mirror_folders(mirror) for wheel in sorted(folder.glob(pattern))]
    if not wheels:
        wheels = [pip_download(gguf.wheel, scratch / "wheel", "a folder")]
    where = f"{wheels[0].name}#{gguf.file}"
    unzip(wheels[0], gguf.file, scratch / name)
    return _verified(scratch / name, gguf, where), where


def _mirror_folders(mirror: str | Path | None) -> list[Path]:
    """Return the mirror and the folders in it; [] without a mirror."""
    if not mirror or not Path(mirror).is_dir():
        return []
    return [Path(mirror), *sorted(path for path in Path(mirror).iterdir() if path.is_dir())]


def _verified(path: Path, gguf: Gguf, where: str) -> Path:
    if (found := sha256(path)) != gguf.sha256:
        raise UserError(
            f"{where}: wrong checksum: sha256 is {found}, the model file says {gguf.sha256}: this is another file, or "
            "a truncated one; nothing was kept"
        )
    return path


def convert(file: Path, folder: Path, dtype: str) -> None:
    """Write the dequantised model of a GGUF file as a folder of safetensors.

    Raises UserError where transformers cannot read the file, or where the folder gives other logits or tokens than the
    GGUF file.
    """
    try:
        quantised, info = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=DTYPES[dtype], local_files_only=True,
            quantization_config=GgufConfig(dequantize=True), output_loading_info=True,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    except (ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise UserError(f"{file.name}: transformers cannot read this GGUF file: {str(error).splitlines()[0]}") from None
    check_loaded(file.name, quantised, info)
    config = copy.deepcopy(quantised.config)
    config.__dict__.pop("quantization_config", None)  # save_pretrained refuses models that have one
    model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    model.load_state_dict(quantised.state_dict())
    save(model, tokenizer, folder)
    del model
    _same(quantised, tokenizer, folder, dtype)


def _same(model, tokenizer, folder: Path, dtype: str) -> None:
    """Raise UserError unless the saved model gives the same tokens and logits on PROBE."""
    found, found_tokenizer = load(folder, dtype, model.config._attn_implementation)
    ids, again = tokenizer(PROBE)["input_ids"], found_tokenizer(PROBE)["input_ids"]
    with torch.no_grad():
        batch = torch.tensor([ids], device=found.device)
        same = ids == again and torch.equal(model.to(found.device).eval()(batch).logits, found.eval()(batch).logits)
    if not same:
        raise UserError(f"{folder.name}: the converted model gives other tokens or logits than the GGUF file")
