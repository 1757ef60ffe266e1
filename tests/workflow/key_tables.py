"""The tables of docs/config.md, from the pydantic models. `python tests/workflow/key_tables.py` writes them anew."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from rtt.config import Study  # noqa: E402


def key_tables() -> dict[str, str]:
    """Return {heading: table} for docs/config.md: one table per part of a study, from the models' JSON schema."""
    definitions = Study.model_json_schema()["$defs"]
    parts = {
        "### At the top": Study.model_json_schema(),
        "### `data.generator`": definitions["People"],
        "### `data.datasets.NAME`": definitions["Dataset"],
        "### `data.datasets.NAME.generate`": definitions["Birthdays"],
        "### `data.policy`": definitions["Policy"],
        "### `data.mirror`": {"title": "Data", "properties": {"mirror": definitions["Data"]["properties"]["mirror"]}},
        "### `model`: the miniature": definitions["Model"],
        "### `model`: a pretrained one": definitions["ModelFile"],
        "### `model.hub`": definitions["Hub"],
        "### `model.gguf`": definitions["Gguf"],
        "### `model.rmu`": definitions["RMULayers"],
        "### `tasks`": definitions["Task"],
        "### `tasks.N.retain` of facts, `retain_eval`, `also_taught`": definitions["RetainFacts"],
        "### `tasks.N.retain` of texts": definitions["RetainTexts"],
        "### `pretraining`": definitions["Pretraining"],
        "### `teaching`": definitions["Teaching"],
        "### `methods.GD`, `methods.RIA`, `methods.FIF`": definitions["Unlearning"],
        "### `methods.RMU`": definitions["RMUUnlearning"],
        "### `scores`": definitions["Scores"],
        "### `selection`": definitions["Selection"],
        "### `rtt`": definitions["Attack"],
    }
    covered = {part["title"] for part in parts.values()} | {"Data", "Methods"}
    assert covered == {"Study", *definitions}, "a part of the study has no table here"
    return {heading: key_table(part) for heading, part in parts.items()}


def key_table(part: dict) -> str:
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key, field in part["properties"].items():
        if field.get("type") == "null":  # a key that this part does not have
            continue
        nested = isinstance(field.get("default", {}), dict) and field.get("default") != {}
        default = "see below" if nested else json.dumps(field["default"])
        default = (
            "**required**" if key in part.get("required", ()) else f"`{default}`" if "below" not in default else default
        )
        rows.append(f"| `{key}` | {kind(field)} | {default} | {field.get('description', '')} |")
    return "\n".join(rows)


def kind(field: dict) -> str:
    """Say in words what a JSON schema admits."""
    if "$ref" in field:
        return "see below"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(kind(option) for option in field["anyOf"]))
    if "oneOf" in field:
        return "see below, or a name in `config/models`"
    if "patternProperties" in field:
        return f"name -> {kind(next(iter(field['patternProperties'].values())))}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"key -> {kind(field['additionalProperties'])}"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of: {kind(field['items'])}"
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[name]}" for name, sign in words.items() if name in field]
    pattern = [f"matching `{field['pattern']}`"] if "pattern" in field else []
    return " ".join([field["type"], *([", ".join(limits)] if limits else []), *pattern])


def main() -> None:
    """Replace each table of docs/config.md; the headings must stand there already."""
    path = ROOT / "docs/config.md"
    text = path.read_text()
    for heading, table in key_tables().items():
        text, n = re.subn(
            rf"^{re.escape(heading)}\n\n(\|.*\n)*",
            lambda _, new=f"{heading}\n\n{table}\n": new,
            text,
            flags=re.MULTILINE,
        )
        if n != 1:
            sys.exit(f"docs/config.md: the heading {heading!r} stands there {n} times, expected once")
    path.write_text(text)


if __name__ == "__main__":
    main()
