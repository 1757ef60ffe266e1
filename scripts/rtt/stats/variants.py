"""Read a study's variants from runs.json, and compute what each changes, paired by seed with the default."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rtt.errors import UserError, brief
from rtt.files import read_json
from rtt.stats.criteria import DEFAULT_CRITERIA, Criteria
from rtt.stats.intervals import t_interval
from rtt.stats.look_choice import LOOK_CHOICES
from rtt.study import plugins
from rtt.study.names import DEFAULT, MOST_VARIANTS, PROBES

QUANTITIES = ("acc_unlearned", "acc_attacked", "recovery", "recovery_corrected")
# A variant that reports its `paper` look choice is compared with what the default reports, its `nested` one.
ON_V = "paper - nested"
FIRST_ATTACK = ("RTT",)  # in the tables of a folder without runs.json; others follow by name
KEYS = ["dataset", "arm", "model", "method", "attack", "retain_budget", "look_choice", "probe"]
COLUMNS = ["variant", *KEYS, "quantity", "n_seeds", "per_seed", "mean", "low", "high"]


@dataclass(frozen=True)
class Variant:
    """The runs of one variant, as file stems, and the look choice that it reports."""

    evals: Sequence[str] = ()
    point_choices: Sequence[str] = ()
    reported: str = "nested"


@dataclass(frozen=True)
class StudyRuns:
    """The variants of a study, and the order of its probes and attacks in the tables."""

    variants: dict[str, Variant]
    probes: tuple[str, ...]  # the main one first
    attacks: tuple[str, ...]
    criteria: Criteria = DEFAULT_CRITERIA
    trained: bool = True  # the study pretrains its model itself, as the miniature

    @classmethod
    def read(cls, path: Path | None) -> "StudyRuns":
        """Read runs.json. Without one (None), all evaluations of a folder are one variant, `default`.

        Raises UserError that names the key where `variants` or the study's probes or attacks are missing or wrong.
        """
        if path is None:
            return cls({DEFAULT: Variant()}, PROBES, FIRST_ATTACK)
        document = read_json(path)
        found = _part(path, document, "variants")
        if DEFAULT not in found:
            raise UserError(
                f"{path}: variants: no {DEFAULT!r}, found {', '.join(found) or 'none'}; start the study again"
            )
        if len(found) > MOST_VARIANTS + 1:  # the study itself is one
            raise UserError(f"{path}: variants: found {len(found)}, expected at most {MOST_VARIANTS} and {DEFAULT!r}")
        variants = {DEFAULT: _variant(path, DEFAULT, found[DEFAULT])}
        variants |= {name: _variant(path, name, one) for name, one in found.items() if name != DEFAULT}
        study = _part(path, document, "study")
        _part(path, study, "point_choice", "study.")
        probes, criteria = probe_order(path, study)
        model = study.get("model")
        trained = not (isinstance(model, dict) and any(model.get(key) for key in ("hub", "path", "gguf")))
        attacks = _part(path, study, "attacks", "study.") if study.get("attacks") is not None else {}
        # Canonical JSON sorts keys: the order is that of the attacks' classes, as in the study.
        order = sorted((name for name in attacks if attacks[name] is not None), key=partial(plugins.place, "attacks"))
        return cls(variants, probes, tuple(order) or FIRST_ATTACK, criteria, trained)


def probe_order(path: Path, study: Mapping[str, Any]) -> tuple[tuple[str, ...], Criteria]:
    """Return the probes in the order of a study's tables, the main one first, and its criteria. Raises UserError."""
    points = _part(path, study, "point_choice", "study.") if "point_choice" in study else {}
    main = points.get("probes") or PROBES
    if unknown := sorted(set(map(str, main)) - set(PROBES)):
        raise UserError(f"{path}: study.point_choice.probes: {unknown[0]!r}, expected some of {', '.join(PROBES)}")
    criteria = Criteria.read(path, study.get("criteria"))
    first = criteria.headline if "criteria" in study else main[:1]  # an earlier day's main probe was that of points
    return tuple(dict.fromkeys([*first, *PROBES])), criteria


def _part(path: Path, mapping: Any, key: str, where: str = "") -> dict:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: {where}{key} is {value!r:.60}, expected an object; start the study again, which writes it"
        )
    return value


def _variant(path: Path, name: str, found: Any) -> Variant:
    lists = [found.get(key) if isinstance(found, dict) else None for key in ("evals", "point_choices")]
    if not all(isinstance(one, list) for one in lists) or found.get("reported") not in LOOK_CHOICES:
        raise UserError(
            f"{path}: variants.{name}: expected the lists evals and point_choices, and reported: nested or paper; "
            "start the study again, which writes it"
        )
    for stem in (*lists[0], *lists[1]):
        parts = stem.split("/") if isinstance(stem, str) else []
        if not 1 <= len(parts) <= 2 or any(part in ("", ".", "..") or set(part) & set("\\\0") for part in parts):
            raise UserError(
                f"{path}: variants.{name}: found {brief(stem)}, expected RUN or RUN/TARGET, which stands below "
                "the folder of results; start the study again, which writes it"
            )
    return Variant(tuple(lists[0]), tuple(lists[1]), found["reported"])


def variant_effects(recovery: pd.DataFrame, reported: dict[str, str]) -> pd.DataFrame:
    """Return what each variant changes against the default: variant minus default, paired by seed.

    There is one row per variant, key (`KEYS`) and quantity. `reported` is {variant: look choice}. A variant that
    reports `paper` is compared with the default's `nested`, and its look choice reads `paper - nested`. Values are
    numbers or NaN, and `per_seed` is a list by seed. A seed where a side has no value drops out, and the t interval
    needs two seeds.
    """
    rows = []
    base = recovery[recovery["variant"] == DEFAULT]
    for name, look_choice in reported.items():
        if name == DEFAULT:
            continue
        own, other = recovery[recovery["variant"] == name], base
        if look_choice == "paper":
            own = own[own["look_choice"] == "paper"].assign(look_choice=ON_V)
            other = base[base["look_choice"] == "nested"].assign(look_choice=ON_V)
        paired = own.merge(other, on=[*KEYS, "seed"], suffixes=("", "_default"))
        for key, cell in paired.groupby(KEYS, sort=False):
            cell = cell.sort_values("seed")
            for quantity in QUANTITIES:
                differences = (cell[quantity] - cell[f"{quantity}_default"]).dropna().tolist()
                rows.append((name, *key, quantity, len(differences), differences, *t_interval(differences)))
    return pd.DataFrame(rows, columns=COLUMNS)
