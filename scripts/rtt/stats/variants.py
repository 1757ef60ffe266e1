"""Variants of a study: the default and others that differ by a patch; what a variant changes, paired by seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rtt.errors import UserError
from rtt.files import read_json
from rtt.scoring.read import SCORINGS
from rtt.stats.intervals import t_interval
from rtt.stats.look_choice import SELECTIONS
from rtt.study.names import DEFAULT

QUANTITIES = ("acc_unlearned", "acc_rtt", "recovery", "recovery_corrected")
# A variant that reports its `paper` selection is compared with what the default reports, its `nested` one.
ON_V = "paper - nested"
KEYS = ["dataset", "arm", "model", "method", "retain_budget", "selection", "scoring"]
COLUMNS = ["variant", *KEYS, "quantity", "n_seeds", "per_seed", "mean", "low", "high"]


@dataclass(frozen=True)
class Variant:
    """The runs of one variant, as file stems, and the selection that it reports."""

    evals: Sequence[str] = ()
    selections: Sequence[str] = ()
    reported: str = "nested"


@dataclass(frozen=True)
class Plan:
    """What a study's plan.json says about its variants, and the order of its scorings, the main one first."""

    variants: dict[str, Variant]
    scorings: tuple[str, ...]

    @classmethod
    def read(cls, path: Path | None) -> "Plan":
        """Read plan.json; None: a bare folder of evaluations, one variant `default`.

        Raises UserError that names the key where `variants` or the study's scorings are missing or wrong.
        """
        if path is None:
            return cls({DEFAULT: Variant()}, SCORINGS)
        plan = read_json(path)
        found = _part(path, plan, "variants")
        if DEFAULT not in found:
            raise UserError(
                f"{path}: variants: no {DEFAULT!r}, found {', '.join(found) or 'none'}; start the study again"
            )
        variants = {DEFAULT: _variant(path, DEFAULT, found[DEFAULT])}
        variants |= {name: _variant(path, name, one) for name, one in found.items() if name != DEFAULT}
        main = _part(path, _part(path, plan, "study"), "selection").get("scorings") or SCORINGS
        if unknown := sorted(set(map(str, main)) - set(SCORINGS)):
            raise UserError(f"{path}: study.selection.scorings: {unknown[0]!r}, expected some of {', '.join(SCORINGS)}")
        return cls(variants, tuple(dict.fromkeys([main[0], *SCORINGS])))


def _part(path: Path, mapping: Any, key: str) -> dict:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, dict):
        raise UserError(f"{path}: {key} is {value!r:.60}, expected an object; start the study again, which writes it")
    return value


def _variant(path: Path, name: str, found: Any) -> Variant:
    lists = [found.get(key) if isinstance(found, dict) else None for key in ("evals", "selections")]
    if not all(isinstance(one, list) for one in lists) or found.get("reported") not in SELECTIONS:
        raise UserError(
            f"{path}: variants.{name}: expected the lists evals and selections, and reported: nested or paper; "
            "start the study again, which writes it"
        )
    return Variant(tuple(lists[0]), tuple(lists[1]), found["reported"])


def variant_effects(recovery: pd.DataFrame, reported: dict[str, str]) -> pd.DataFrame:
    """Return what each variant changes against the default: variant minus default, paired by seed.

    One row per variant, key (`KEYS`) and quantity. `reported` is variant -> selection. A variant that reports `paper`
    is compared by that with the default's `nested`, and its selection reads `paper - nested`. Values are numbers or
    NaN, `per_seed` a list by seed; a seed where a side has no value drops out; the t interval needs two seeds.
    """
    rows = []
    base = recovery[recovery["variant"] == DEFAULT]
    for name, selection in reported.items():
        if name == DEFAULT:
            continue
        own, other = recovery[recovery["variant"] == name], base
        if selection == "paper":
            own = own[own["selection"] == "paper"].assign(selection=ON_V)
            other = base[base["selection"] == "nested"].assign(selection=ON_V)
        paired = own.merge(other, on=[*KEYS, "seed"], suffixes=("", "_default"))
        for key, cell in paired.groupby(KEYS, sort=False):
            cell = cell.sort_values("seed")
            for quantity in QUANTITIES:
                differences = (cell[quantity] - cell[f"{quantity}_default"]).dropna().tolist()
                rows.append((name, *key, quantity, len(differences), differences, *t_interval(differences)))
    return pd.DataFrame(rows, columns=COLUMNS)
