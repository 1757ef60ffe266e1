"""`python -m rtt compare A B`: which numbers of two bundles differ, and whether by more than their intervals allow."""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from rtt.bundle import opening, rebuild
from rtt.bundle.layout import strict_json
from rtt.errors import UserError
from rtt.figures.style import number
from rtt.stats.tables import read_table

KEYS = ["dataset", "arm", "model", "method", "attack", "variant", "seed", "retain_budget", "look_choice", "probe"]
WITH_INTERVAL = (
    *("acc_unlearned", "acc_attacked", "acc_original_attacked", "acc_control_attacked", "acc_oracle_attacked"),
    *("recovery", "recovery_corrected", "recovery_difference"),
)
ALONE = (
    *("acc_before", "t_acc_attacked", "t_acc_original_attacked", "t_acc_control_attacked", "retain_before"),
    *("retain_unlearned", "perplexity_before", "perplexity_unlearned", "floor", "original_floor"),
)
SAID = ("status", "counts")  # in words
WHERE = (
    "packages",
    "hardware",
    "python",
    "precision",
    "attn_backend",
    "engine",
    "launcher",
    "world_size",
    "git_commit",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "bundles", nargs=2, metavar="BUNDLE", help="bundle (.zip), its folder or URL, or results folder"
    )
    parser.add_argument("--all", action="store_true", help="show equal numbers, too, and every look choice and probe")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the numbers that differ, or all of them."""
    found = compare(*args.bundles)
    if args.json:
        print(json.dumps(found, indent=1, sort_keys=True, allow_nan=False))
    else:
        print(text(found, args.all), end="")
    return 0


def compare(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Compare two artifacts; their tables are made again from their scores.

    `rows`: one per cell and number: `key`, `number`, `a`, `b`, `difference` (b - a), `bound` (None without intervals),
    `verdict`. `bound` is sqrt(ha^2 + hb^2) of the two 95 % intervals' half widths on the sides that face each other:
    were the two estimates independent, chance alone would exceed it about once in 20 times. Bundles that score the same
    questions are not independent, so for them it is too wide.

    Raises UserError where a bundle cannot be opened, or where the two share no cell.
    """
    with tempfile.TemporaryDirectory() as folder:
        sides = [_read(path, Path(folder, name)) for path, name in ((a, "a"), (b, "b"))]
    tables = [side.pop("table") for side in sides]
    keys, fixed = _common_keys(*tables)
    left, right = (table.set_index(keys) for table in tables)
    if not (left.index.is_unique and right.index.is_unique):
        raise UserError(f"{a} and {b}: cells are not told apart by {', '.join(keys)}; compare single seeds or methods")
    shared = [key for key in left.index if key in right.index]
    if not shared:
        raise UserError(f"{a} and {b} share no cell of {', '.join(keys)}, so there is nothing to compare")
    rows = []
    for key in shared:
        cell = dict(zip(keys, map(_plain, key if isinstance(key, tuple) else (key,)), strict=True))
        for name in (*WITH_INTERVAL, *ALONE):
            rows.append({"key": cell, "number": name, **_difference(name, left.loc[key], right.loc[key])})
        for name in SAID:
            said = [str(table.loc[key, name]) for table in (left, right)]
            if said[0] != said[1]:
                rows.append({"key": cell, "number": name, "a": said[0], "b": said[1], "difference": None,
                             "bound": None, "verdict": "differs"})  # fmt: skip
    only = {
        name: [
            list(map(_plain, key if isinstance(key, tuple) else (key,))) for key in one.index if key not in other.index
        ]
        for name, one, other in (("a", left, right), ("b", right, left))
    }
    settings = _settings(sides[0].pop("study"), sides[1].pop("study"))
    return {"a": sides[0], "b": sides[1], "fixed": fixed, "settings": settings, "rows": rows, "only": only}


def _read(artifacts: str | Path, folder: Path) -> dict[str, Any]:
    opened = opening.look(artifacts)
    opening.unpack(opened, folder)
    results = folder / "results" / opened.index.study
    rebuild.make_tables(results)
    manifests = [strict_json(path.read_bytes(), path.name) for path in sorted(results.glob("manifests/*.json"))]
    table = read_table(results / "tables/recovery.csv")
    if table.empty:
        raise UserError(f"{artifacts}: nothing was unlearned and attacked, so there is no recovery to compare")
    return {
        "path": str(artifacts),
        "study": strict_json((results / "runs.json").read_bytes(), "runs.json")["study"],
        "table": table,
        "name": opened.name,
        "made": {key: sorted({_line(m[key]) for m in manifests if m.get(key) is not None}) for key in WHERE},
    }


def _line(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in sorted(value.items())) if isinstance(value, dict) else str(value)


def _common_keys(a: pd.DataFrame, b: pd.DataFrame) -> tuple[list[str], dict[str, list[str]]]:
    """Return the keys that tell cells apart, and those that differ as a whole between the two tables.

    Where each side has one value of a key, and not the same, that is what is compared: two methods, two seeds, two
    attacks.
    """
    keys, fixed = [], {}
    for key in KEYS:
        values = [sorted(set(table[key].astype(str))) for table in (a, b)]
        if values[0] != values[1] and len(values[0]) == len(values[1]) == 1:
            fixed[key] = [values[0][0], values[1][0]]
        else:
            keys.append(key)
    return keys, fixed


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _difference(name: str, a: pd.Series, b: pd.Series) -> dict[str, Any]:
    one, other = float(a[name]), float(b[name])
    if math.isnan(one) or math.isnan(other):
        both = math.isnan(one) and math.isnan(other)
        return {"a": _known(one), "b": _known(other), "difference": None, "bound": None,
                "verdict": "equal" if both else "known on one side alone"}  # fmt: skip
    difference, bound = round(other - one, 6), None
    if name in WITH_INTERVAL:
        up = difference > 0
        sides = (
            (a[f"{name}_high"] - one, other - b[f"{name}_low"])
            if up
            else (one - a[f"{name}_low"], b[f"{name}_high"] - other)
        )
        bound = _known(round(math.hypot(*map(float, sides)), 6))
    if difference == 0:
        verdict = "equal"
    elif bound is None:
        verdict = "differs, no interval"
    else:
        verdict = "beyond the intervals" if abs(difference) > bound else "within the intervals"
    return {"a": one, "b": other, "difference": difference, "bound": bound, "verdict": verdict}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _settings(a: dict, b: dict) -> dict[str, list]:
    """Return the keys of the study that differ, by their dotted names."""
    flat = [_flat(study) for study in (a, b)]
    names = sorted(flat[0].keys() | flat[1].keys())
    pairs = {name: [one.get(name, "–") for one in flat] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {name: value}
    found = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{name}.{key}" if name else str(key))
    return found


def text(found: dict[str, Any], everything: bool = False) -> str:
    """Return the comparison for a terminal: cells of the main probe's nested look choice, or all of them."""
    a, b = found["a"], found["b"]
    lines = [f"A  {a['path']}", f"B  {b['path']}"]
    lines += [f"{key}: A {one}, B {other}" for key, (one, other) in found["fixed"].items()]
    for name, (one, other) in found["settings"].items():
        lines.append(f"study, {name}: A {one}, B {other}")
    for key in WHERE:
        if a["made"][key] != b["made"][key]:
            lines.append(f"{key}: A {'; '.join(a['made'][key]) or '–'} | B {'; '.join(b['made'][key]) or '–'}")
    rows = found["rows"]
    main = next((row["key"].get("probe") for row in rows), None)
    differing = [row for row in rows if row["verdict"] != "equal"]
    counts = {
        verdict: sum(row["verdict"] == verdict for row in rows) for verdict in dict.fromkeys(r["verdict"] for r in rows)
    }
    lines += [
        "",
        f"{len(differing)} of {len(rows)} numbers differ: " + ", ".join(f"{n} {v}" for v, n in sorted(counts.items())),
    ]
    if not everything:
        differing = [row for row in differing if row["key"].get("probe", main) == main]
        differing = [row for row in differing if row["key"].get("look_choice", "nested") == "nested"]
    shown = rows if everything else differing
    several = [
        k
        for k in KEYS
        if len({str(row["key"].get(k)) for row in rows}) > 1 and (everything or k not in ("look_choice", "probe"))
    ]
    table = [[*several, "number", "A", "B", "B - A", "intervals allow", ""]]
    for row in shown:
        values = [_shown(row[name]) for name in ("a", "b", "difference", "bound")]
        table.append([*(str(row["key"].get(k)) for k in several), row["number"], *values, row["verdict"]])
    if shown:
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
    for side in ("a", "b"):
        if found["only"][side]:
            lines.append(f"cells of {side.upper()} alone: {len(found['only'][side])}")
    if not everything:
        lines.append("shown: nested look choice, the main probe; --all shows every number, --json is for programs")
    # A text in a bundle may hold newlines, which would look like lines of this comparison.
    return "".join(" ".join(line.splitlines()) + "\n" for line in lines)


def _shown(value: Any) -> str:
    return "–" if value is None else number(value) if isinstance(value, float) else str(value)
