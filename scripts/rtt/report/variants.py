"""What a variant is about, read off the keys that it sets; results by the size of T."""

from dataclasses import dataclass
from typing import Any

from rtt.figures.view import View
from rtt.report.inputs import part
from rtt.report.rows import Cell, Group, cells, in_order
from rtt.study.names import DEFAULT

# The first of these kinds that fits is a variant's. Formats and faithful switches have a section each.
FORMAT, FAITHFUL, HIDING, T_SIZE, ATTACK, OTHER = KINDS = ("format", "faithful", "hiding", "t_size", "attack", "other")
TEXT_KEYS = ("mcq_share", "mcq_loss", "sentence_loss")
T_KEYS = ("samples", "v_splits")
LONGEST, DEEPEST = 300, 5  # characters of what a variant changes; keys below one another


def kind_of(patch: dict[str, Any]) -> str:
    """Return what a variant is about, from the keys that it sets."""
    methods, attacks = (_objects(part(patch, folder)) for folder in ("methods", "attacks"))
    if "faithful" in patch:
        return FAITHFUL
    # The model of sec. 6.1 is frozen but for some layers; without that the loss alone hides nothing on purpose.
    if any(method.get("sentence_loss") == "NUMBER" and method.get("train_layers") for method in methods):
        return HIDING
    if any(key in method for method in methods for key in TEXT_KEYS):
        return FORMAT
    if any(one.get("loss") for one in (*attacks, part(patch, "teaching"))):
        return FORMAT
    if any(key in attack for attack in attacks for key in T_KEYS):
        return T_SIZE
    return ATTACK if part(patch, "attacks") else OTHER


def _objects(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in values.values() if isinstance(one, dict)]


def changes(patch: dict[str, Any]) -> str:
    """Write the keys that a variant sets: `methods.GD.mcq_share 1.0; without RMU`."""
    found: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and path.count(".") < DEEPEST:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else str(key))
        elif value is None and path.count(".") == 1 and path.startswith(("methods.", "attacks.")):
            found.append(f"without {path.partition('.')[2]}")
        elif isinstance(value, list) and not any(isinstance(one, (dict, list)) for one in value):
            found.append(f"{path} {', '.join(map(str, value))}")
        else:
            found.append(f"{path} {'(changed)' if isinstance(value, (dict, list)) else value}")

    walk(patch, "")
    text = "; ".join(found)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


@dataclass(frozen=True)
class SizesOfT:
    """Results by the number of facts that the attack trains on. `facts`: those beside one V split, None if unknown."""

    facts: int | None
    groups: list[Group[Cell]]


def sizes_of_t(view: View, study: dict[str, Any]) -> SizesOfT:
    """Return the results of the default and of each variant that changes the size of T, the largest T first.

    A cell's label is the variant, its detail the size: from the tables' T questions and the attack's `samples`, or
    `not known`. There are no groups without such variants.
    """
    variants = part(study, "variants")
    names = [name for name in variants if kind_of(part(variants, name)) == T_SIZE]
    whole = t_questions(view)
    sized: list[tuple[int, Cell]] = []
    for name in [DEFAULT, *names] if names else []:
        settings = part(variants, name, "attacks", view.attack)
        samples = settings.get("samples") or part(study, "attacks", view.attack).get("samples")
        size = min(samples, whole) if isinstance(samples, int) and whole is not None else whole
        if settings.get("v_splits"):
            size = None  # the tables of the default do not say how large other splits are
        text = "not known" if size is None else str(size)
        sized += [(size or 0, cell) for cell in cells(view, view.alternative(variant=name), name, lambda *_, t=text: t)]
    sized.sort(key=lambda pair: -pair[0])
    return SizesOfT(whole, in_order(view, [cell for _, cell in sized]))


def t_questions(view: View) -> int | None:
    """Return the number of T questions beside one V split; None where no attack used T."""
    rows = view.accuracy
    rows = rows[(rows["stage"] == "unlearned_attacked") & (rows["set"] == "T") & (rows["v_split"] != "all")]
    rows = rows[rows["look_choice"] == "none"]
    return int(rows["n_questions"].max()) if len(rows) else None
