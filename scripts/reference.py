"""Write the reference in docs/reference, config/schema.json and tests/data/spec_keys.json from the code.

commands.md is made of the argument parsers; study.md of the pydantic models of a study; files.md of the specs, the
schema of evaluations, the shapes of a bundle's other documents, and bundle.json; tables.md of the data dictionary.
tests/workflow/test_reference.py holds them to it.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import spec_keys  # noqa: E402
from rtt.__main__ import COMMANDS  # noqa: E402
from rtt.bundle import documents, layout  # noqa: E402
from rtt.data.facts import Fact  # noqa: E402
from rtt.stats import dictionary  # noqa: E402
from rtt.study import plugins  # noqa: E402
from rtt.study.load import schema  # noqa: E402
from rtt.study.specs import SPECS  # noqa: E402

FOLDER = ROOT / "docs/reference"


def plugin_parts(key: str, title: str) -> dict[str, str]:
    """Return {part: heading} of the settings of plug-ins, which stand at `key` of a study; some share a part."""
    names: dict[str, list[str]] = {}
    for name, field in schema()["$defs"][title]["properties"].items():
        names.setdefault(field["anyOf"][0]["$ref"].rsplit("/", 1)[1], []).append(f"`{key}.{name}`")
    return {part: ", ".join(found) for part, found in names.items()}


# Part of a study in config/schema.json -> heading of its table in study.md.
STUDY_PARTS = {
    "Study": "At the top",
    "People": "`data.generator`",
    "Dataset": "`data.datasets.NAME`",
    "Birthdays": "`data.datasets.NAME.generate`",
    "Policy": "`data.policy`",
    "Data": "`data.mirror`",
    "Model": "`model`: the miniature",
    "ModelFile": "`model`: a pretrained one",
    "Hub": "`model.hub`",
    "Gguf": "`model.gguf`",
    "RMULayers": "`model.rmu`",
    "Task": "`tasks`",
    "RetainFacts": "`tasks.N.retain` of facts, `retain_eval`, `also_taught`",
    "RetainTexts": "`tasks.N.retain` of texts",
    "Pretraining": "`pretraining`",
    "Teaching": "`teaching`",
    **plugin_parts("methods", "Methods"),
    "LoRA": "`methods.NAME.lora`",
    "HubModel": "`external_models.NAME` on the hub",
    "Revision": "`external_models.NAME.hub`",
    "Scores": "`scores`",
    "PointChoice": "`point_choice`",
    "Repeats": "`repeats`",
    "Criteria": "`criteria`",
    **plugin_parts("attacks", "Attacks"),
}
TABLES = (
    "What each table of `results/<study>/tables/` has a row for, and what its columns hold. `none` stands for no "
    "method, no attack and no look choice. How the numbers come about: [statistics.md](../statistics.md); words: the "
    "[glossary](../architecture.md#glossary); what to ask of the tables: [analyse.md](../analyse.md). Every bundle has "
    "this page as it was when the bundle was made (`TABLES.md`)."
)
MADE = "Made from the code by `python scripts/reference.py`; a test keeps it so. Do not edit."


def pages() -> dict[Path, str]:
    """Return {path: text} of all that this program writes."""
    return {
        FOLDER / "commands.md": commands(),
        FOLDER / "study.md": study(),
        FOLDER / "files.md": files(),
        FOLDER / "tables.md": dictionary.page("Tables", MADE, TABLES),
        ROOT / "config/schema.json": json.dumps(schema(), indent=1) + "\n",
        spec_keys.FILE: spec_keys.text(),
    }


# --- commands


def commands() -> str:
    """Return commands.md: every command of `python -m rtt` with its arguments; targets of Snakemake and make."""
    text = [
        "# Commands",
        MADE,
        "`python -m rtt COMMAND --help` prints the same. Exit codes: 0 done, 1 the user's mistake (one message, no "
        "traceback), 2 wrong usage, 143 stopped by SIGTERM with what was trained saved.",
    ]
    text += [f"## `{name}`\n\n{command(name, *entry)}" for name, entry in COMMANDS.items()]
    text += [
        f"## `snakemake`\n\nWithout a target: `all`.\n\n{snakemake_targets()}",
        f"## `make`\n\n```text\n{output('make', '-s', 'help')}\n```",
    ]
    return "\n\n".join(text) + "\n"


def output(*words: str) -> str:
    """Return what a program prints on stdout. Without variables of ours: `make help` shows their values as defaults."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def snakemake_targets() -> str:
    """Return the table of targets that one can name; without one, Snakemake makes `all`."""
    rows = ["| target | |", "|---|---|"]
    for line in output(sys.executable, "-m", "snakemake", "--list-target-rules").splitlines():
        name, _, summary = line.partition(" ")
        if name.removeprefix("attacks_").isdigit():  # one of the default study's jobs; no file names it
            continue
        rows.append(f"| `{name}` | {cell(summary.strip().removeprefix('(').removesuffix(')'))} |")
    return "\n".join(rows)


def command(name: str, module: str, summary: str) -> str:
    """Return a command's summary and the table of its arguments."""
    parser = argparse.ArgumentParser(prog=f"python -m rtt {name}", add_help=False)
    importlib.import_module(module).configure(parser)
    rows = ["| argument | value | default | |", "|---|---|---|---|"]
    for action in parser._actions:  # argparse has no public way to list them
        if action.help == argparse.SUPPRESS:
            continue
        spelled = ", ".join(f"`{one}`" for one in action.option_strings) or f"`{metavar(action)}`"
        if action.required and action.option_strings:
            spelled += " **required**"
        rows.append(f"| {spelled} | {value(action)} | {default(action)} | {described(action)} |")
    upper = summary[0].upper() + summary[1:]
    table = "\n".join(rows) if len(rows) > 2 else "No arguments."
    return f"{upper}{'' if upper.endswith(('.', '?')) else '.'}\n\n{table}"


def metavar(action: argparse.Action) -> str:
    """Return how usage lines name the argument's value."""
    name = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    return " ".join(name) if isinstance(name, tuple) else name


def value(action: argparse.Action) -> str:
    """Say what an argument takes: nothing, one of a few words, or so many values."""
    if action.nargs == 0:
        return ""
    if action.choices:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    many = {"*": "any number", "+": "one or more", "?": "at most one"}.get(action.nargs, "")
    name = f"`{metavar(action)}`" if action.option_strings else ""
    return f"{name} {many}".strip()


def default(action: argparse.Action) -> str:
    """Return an argument's default, empty where there is none."""
    if action.nargs == 0 or action.default in (None, [], "", argparse.SUPPRESS):
        return ""
    many = isinstance(action.default, (list, tuple))
    return f"`{cell(' '.join(map(str, action.default)) if many else str(action.default))}`"


def described(action: argparse.Action) -> str:
    """Return an argument's help, without the default where that stands in a column of its own."""
    text = (action.help or "") % vars(action)
    return cell(re.sub(r" *\(default: [^()]*\)$", "", text) if default(action) else text)


def cell(text: str) -> str:
    """Return a text that can stand in a table, and is the same in every clone."""
    return re.sub(r"\s+", " ", text.replace(f"{ROOT}/", "")).replace("|", "\\|")


# --- tables of JSON


def key_table(part: dict, named: bool = False) -> str:
    """Return the table of an object's keys from its JSON schema. `named`: other parts by name, not as "see below"."""
    if not part["properties"]:
        return "No keys."
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key, field in part["properties"].items():
        if field.get("type") == "null":  # a key that this part does not have
            continue
        if key in part.get("required", ()):
            shown = "**required**"
        elif isinstance(field.get("default"), dict) and field["default"]:
            shown = "its own" if named else "see below"
        else:
            shown = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        rows.append(f"| `{key}` | {kind(field, named)} | {shown} | {cell(field.get('description', ''))} |")
    return "\n".join(rows)


def kind(field: dict, named: bool = False) -> str:
    """Say in words what a JSON schema admits."""
    if "$ref" in field:
        return part_name(field["$ref"].rsplit("/", 1)[1]) if named else "see below"
    if field.get("type") == "object" and "properties" in field:
        return f"object of {', '.join(f'`{key}`' for key in field['properties'])}"
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(kind(option, named) for option in field["anyOf"]))
    if "oneOf" in field:
        options = [option.get("description", "") or kind(option, named) for option in field["oneOf"]]
        return ", or ".join(dict.fromkeys(options))
    if "patternProperties" in field:
        return f"name -> {kind(next(iter(field['patternProperties'].values())), named)}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"key -> {kind(field['additionalProperties'], named)}"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if isinstance(field["type"], list):
        return " or ".join(kind({**field, "type": one}, named) for one in field["type"])
    if field["type"] == "array":
        return f"list of: {kind(field['items'], named)}"
    words = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    limits = [f"{sign} {limit(field[name])}" for name, sign in words.items() if name in field]
    pattern = [f"matching `{field['pattern']}`"] if "pattern" in field and field["type"] == "string" else []
    return " ".join([field["type"], *([", ".join(limits)] if limits and field["type"] != "null" else []), *pattern])


def limit(end: float) -> str:
    """Write a limit: `1e+12` rather than its zeros."""
    return f"{end:g}" if float(f"{end:g}") == end else str(end)


def part_name(name: str) -> str:
    """Return a part of a spec or an evaluation as a link to its table; parts of a study stand in study.md."""
    if name not in STUDY_PARTS:
        return f"[{name}](#{name.lower()})"
    anchor = re.sub(r"[^\w\- ]", "", STUDY_PARTS[name].lower()).replace(" ", "-")  # as GitHub makes it
    return f"[{name}](study.md#{anchor})"


# --- study files


def study() -> str:
    """Return study.md: a table for each part of a study. Raises ValueError where a part has none."""
    found = schema()
    parts = {"Study": found, **found["$defs"]}
    if without := parts.keys() - STUDY_PARTS.keys() - {"Methods", "Attacks"}:  # they have nothing but their own parts
        raise ValueError(f"scripts/reference.py: give these parts of a study a heading in STUDY_PARTS: {without}")
    parts["Data"]["properties"] = {"mirror": parts["Data"]["properties"]["mirror"]}
    text = [
        "# Every key of a study file",
        MADE,
        'How study files work: [config.md](../config.md). "See below" is a part with a table of its own. `batch_size` '
        "of a method counts texts per step, as many to forget and as many to retain; `points` are optimizer steps. "
        "`attacks.RTT` has one training for each learning rate and V split.",
    ]
    text += [f"## {heading}\n\n{key_table(parts[name])}" for name, heading in STUDY_PARTS.items()]
    text += ["## The methods", method_table()]
    return "\n\n".join(text) + "\n"


def method_table() -> str:
    """Return the table of the unlearning methods, from their classes."""
    rows = ["| method | | sentences on the forget side | a copy of the original |", "|---|---|---|---|"]
    for name, method in plugins.methods().items():
        copied = "whole" if method.needs_reference else ""
        rows.append(f"| `{name}` | {cell(method.title)} | {method.texts.replace('_', ' ')} | {copied} |")
    return "\n".join(rows)


# --- files


def files() -> str:
    """Return files.md: facts, evaluations, a bundle's other documents, a bundle's index, specs."""
    text = [
        "# Files",
        MADE,
        "What the columns and keys mean, and which step writes what: [architecture.md](../architecture.md). A study's "
        "keys: [study.md](study.md).",
        "## Facts: `data/<run>/facts.jsonl`",
        "\n".join(f"- `{field.name}`: {words(field.type)}" for field in dataclasses.fields(Fact)),
        *evaluations(),
        *shapes(),
        "## Tables: `tables/*.csv`",
        "Every column: [tables.md](tables.md).",
        "## Bundles: `bundle.json`",
        f"Version {layout.VERSION}. Each file of `files`:\n\n"
        + "\n".join(f"- `{field.name}`: {words(field.type)}" for field in dataclasses.fields(layout.Entry)),
        *specs(),
    ]
    return "\n\n".join(text) + "\n"


def words(annotation) -> str:
    """Return a type as it is written."""
    return f"`{annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)}`"


def evaluations() -> list[str]:
    """Return the sections on evaluation JSON, from config/eval.schema.json."""
    found = json.loads((ROOT / "config/eval.schema.json").read_text(encoding="utf-8"))
    parts = {"labels": found["properties"]["labels"], "hashes": found["properties"]["hashes"]}
    parts |= {name: found["$defs"][name] for name in ("look", "question", "probe")}
    for part in parts.values():
        for key, field in part["properties"].items():
            if field.get("$ref") == "#/$defs/name":  # a pattern, no part with keys of its own
                part["properties"][key] = found["$defs"]["name"] | field
                del part["properties"][key]["$ref"]
    text = ["## Evaluations: `evals/*.json`", "JSON schema: `config/eval.schema.json`.", key_table(found, named=True)]
    for name, part in parts.items():
        text += [f"### {name}", key_table(part, named=True)]
    return text


def shapes() -> list[str]:
    """Return the sections on the documents that are checked when a bundle is opened; evaluations have their own."""
    text = [
        "## Plan, audits, manifests, point choices",
        "What is checked of them when a bundle is opened; other keys may stand beside these. `NAME` is any name, `N` "
        "each of a list; what is required below another key is required where that key is.",
    ]
    for pattern, shape in documents.SHAPES:
        if not pattern.startswith("evals/"):
            found = shape.model_json_schema()
            where = pattern.replace("\\", "").replace("[^/]+", "<run>")
            text += [f"### `{where}`", key_table(flat(found, found.get("$defs", {})), named=True)]
    return text


def flat(part: dict, parts: dict[str, dict]) -> dict:
    """Return a JSON schema with the keys of its parts as keys of its own: `details.N.path`, `variants.NAME.evals`."""
    properties, required = {}, list(part.get("required", ()))
    for key, field in part["properties"].items():
        values = field.get("additionalProperties") or next(iter(field.get("patternProperties", {}).values()), None)
        ways = {"": field, ".N": field.get("items"), ".NAME": values if isinstance(values, dict) else None}
        way, inner = next(((way, name) for way, one in ways.items() if (name := _part_of(one or {}))), ("", None))
        if inner is None:
            properties[key] = field
            continue
        below = flat(parts[inner], parts)
        properties |= {f"{key}{way}.{name}": one for name, one in below["properties"].items()}
        required += [f"{key}{way}.{name}" for name in below["required"]]
    return {"properties": properties, "required": required}


def _part_of(field: dict) -> str | None:
    """Return the name of the part that a field is, or that it is where it is not null; None for other fields."""
    refs = [one["$ref"] for one in (field, *field.get("anyOf", ())) if "$ref" in one]
    return refs[0].rsplit("/", 1)[1] if refs else None


def specs() -> list[str]:
    """Return the sections on specs: one per kind, and the parts that only specs have."""
    text = [
        "## Specs: `specs/<run>.json`",
        "All that decides a run's numbers. A run's id is a readable slug, its seed, and the first 10 hex digits of the "
        "sha256 of this JSON, written with sorted keys and without spaces.",
    ]
    parts: dict[str, dict] = {}
    for spec in SPECS.values():
        found = spec.model_json_schema()
        parts |= found.pop("$defs", {}) | {found["title"]: found}
    for name in sorted(parts.keys() - STUDY_PARTS.keys()):
        summary = re.sub(r"\s+", " ", parts[name].get("description", "").split("\n\n")[0])
        text += [f"### {name}", *([summary] if summary else []), key_table(parts[name], named=True)]
    return text


def main() -> None:
    """Write all pages."""
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
