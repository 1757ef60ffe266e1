"""What a study is about, in everyday words: its facts, and its model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rtt.figures.style import dataset_title
from rtt.figures.view import Panel
from rtt.report.inputs import part

GENERATED = "birth_years"  # how the names of the miniature's datasets of people begin


@dataclass(frozen=True)
class Facts:
    """Facts as a sentence names them: `of` with their number, `some` without it, `others` of the same kind.

    As they stand in KNOWN, `of` has a place for the number.
    """

    of: str
    some: str
    others: str


# By source or dataset, as a study names it. {} takes the number of facts.
KNOWN = {
    GENERATED: Facts("the birth years of {} invented people", "invented people's birth years", "other people's"),
    "random_birthdays": Facts(
        "the birth years of {} invented people", "invented people's birth years", "other people's"
    ),
    "random_bd": Facts("the birth years of {} invented people", "invented people's birth years", "other people's"),
    "years": Facts("the years of {} events", "the years of events", "other events"),
    "dates_years_trimmed": Facts("the years of {} events", "the years of events", "other events"),
    "mmlu": Facts("{} school and college facts", "school and college facts", "other such facts"),
    "wmdp": Facts("{} facts about dangerous technology", "facts about dangerous technology", "other such facts"),
    "tofu_world_facts": Facts("{} facts about the world", "facts about the world", "other such facts"),
    "tofu_real_authors": Facts("{} facts about real authors", "facts about real authors", "other such facts"),
}
SEVERAL = Facts("{} facts of several kinds", "facts of several kinds", "other such facts")


def facts(study: Mapping[str, Any], panels: Sequence[Panel], counts: Mapping[str, int]) -> Facts:
    """Return what the facts of some panels are; of datasets that nobody described here, their titles.

    counts: {dataset: how many of its facts were to be forgotten}; where one is missing, no number is told.
    """
    found = _kind(study, panels)
    names = {panel.dataset for panel in panels}
    if not names <= counts.keys():
        return replace(found, of=found.some)
    return replace(found, of=found.of.format(sum(counts[name] for name in names)))


def _kind(study: Mapping[str, Any], panels: Sequence[Panel]) -> Facts:
    names = list(dict.fromkeys(panel.dataset for panel in panels))
    if len(names) > 1:
        return SEVERAL
    [name] = names
    source = str(part(study, "data", "datasets", name).get("source", name))
    known = next((found for key, found in KNOWN.items() if source == key or name == key), None)
    if known is None and name.startswith(GENERATED) and part(study, "data", "generator"):
        known = KNOWN[GENERATED]
    if known is None:
        title = dataset_title(name)
        known = Facts(f"{{}} facts of {title}", f"the facts of {title}", "other such facts")
    return known


@dataclass(frozen=True)
class Model:
    """A study's model as a sentence begins with it, several of it, and what has to be said of it, or ""."""

    one: str
    many: str
    about: str


def model(study: Mapping[str, Any], panels: Sequence[Panel], invented: bool) -> Model:
    """Return what the model is. invented: the facts are made up."""
    name = panels[0].model
    shape = part(study, "model")
    if name != "miniature":
        return Model(f"The model {name}", f"copies of {name}", "")
    about = "The model is a toy"
    if all(isinstance(shape.get(key), int) for key in ("layers", "hidden_size", "intermediate_size")):
        width, inner = shape["hidden_size"], shape["intermediate_size"]
        weights = shape["layers"] * (4 * width**2 + 3 * width * inner)
        about += f": its {shape['layers']} layers have {float(f'{weights:.1e}'):,.0f} weights"
    about += (
        ", and its facts are invented" if invented else ""
    ) + ". It shows how the test works, and says nothing about large models."
    return Model("A small model", "small models", about)
