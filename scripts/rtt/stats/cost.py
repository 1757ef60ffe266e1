"""cost.csv: how much of V and of T a model answers after so many steps, tokens and FLOPs of an attack that trains on T.

Steps come from the attack's spec and the questions of T; tokens from the manifest of its run, which counted them; FLOPs
are 6 x parameters x tokens (Kaplan et al. 2020, arXiv 2001.08361, sec. 2.1: 2 forward and 4 backward).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from rtt.data.size import miniature_parameters
from rtt.errors import UserError
from rtt.files import canonical_json, read_json
from rtt.scoring.read import AttackScores, PointScores
from rtt.stats.assemble import ArmScores, in_order, place
from rtt.stats.intervals import interval
from rtt.stats.reported import before, t_at, v_correct, v_groups, v_view
from rtt.stats.strongest import Suite
from rtt.stats.variants import FIRST_ATTACK
from rtt.study import plugins
from rtt.study.names import DEFAULT, NONE, PROBES, SENTENCE_LOSSES, setting_text
from rtt.study.settings import Model
from rtt.study.specs import AttackSpec
from rtt.study.strict import AS_WRITTEN

COLUMNS = [
    *("dataset", "arm", "model", "method", "attack", "variant", "seed", "retain_budget", "stage", "probe"),
    *("setting", "epoch", "step", "tokens", "flops", "n_questions", "accuracy", "low", "high", "n_t", "accuracy_t"),
]
PER_TOKEN = 6  # FLOPs of a training per parameter and token
SENTENCES = 3  # of each fact, where the loss is of sentences


@dataclass(frozen=True)
class Work:
    """What a whole training of an attack is: its epochs, steps, tokens and FLOPs.

    The last three are means over the V splits, and NaN where nothing says them.
    """

    epochs: int
    steps: float
    tokens: float
    flops: float


NOTHING = Work(1, math.nan, math.nan, math.nan)


class Counted:
    """Facts as `Attack.cost` is given them, of which only the steps of a training are counted."""

    def __init__(self, sentence: bool):
        self.sentence = float(sentence)  # whether the facts have sentences

    def passes(
        self, facts: int, loss: str, epochs: int, batch_size: int, samples: int | None, sentences: bool = False
    ) -> tuple[int, float]:
        """Return the steps of `rtt.training.order.training_passes`, whose last batch of an epoch is filled up."""
        of_sentences = loss in SENTENCE_LOSSES
        both = sentences and not of_sentences and self.sentence > 0
        shown = min(samples or facts, facts) * (SENTENCES if of_sentences else 1 + both)
        return -(-shown // batch_size) * epochs, math.nan

    def __getattr__(self, name: str) -> float:
        """Return NaN for the length of any text, of which no number of steps is made."""
        if name.startswith("__"):
            raise AttributeError(name)
        return math.nan


class Works:
    """What the attacks of a results folder took, as far as its specs, audits and manifests say."""

    def __init__(self, root: Path):
        self.root = root
        self._of_run = cache(self._of_run)

    def of(self, scores: AttackScores) -> Work | None:
        """Return what each training of an attack took; None for one whose looks are no epochs of a training on T."""
        attack = plugins.attacks().get(scores.attack)
        if attack is None or not attack.asks_t() or attack.uses_retain or attack.control:
            return None
        if not scores.settings or not all("epoch" in setting for setting in scores.settings):
            return None
        splits = scores.questions.splits
        t_facts = tuple(sum(split != v for split in splits) for v in scores.v_splits)
        return self._of_run(scores.run_id.partition(".")[0], scores.path, attack, t_facts)

    def _of_run(self, run: str, path: Path, attack: Any, t_facts: tuple[int, ...]) -> Work:
        spec = self._spec(run, path)
        if spec is None or spec.attack != attack.name:
            return NOTHING
        steps = [self._steps(attack, spec, n) for n in t_facts]
        manifest = self._json("manifests", f"{run}.json")
        trainings, tokens = manifest.get("trainings"), manifest.get("tokens")
        each = tokens / trainings if trainings and tokens else math.nan
        return Work(spec.settings.epochs, float(np.mean(steps)), each, PER_TOKEN * self._parameters(spec) * each)

    def _spec(self, run: str, path: Path) -> AttackSpec | None:
        """Return the spec of a run, from specs/ or from an evaluation; None where neither has one that can be read."""
        raw = self._json("specs", f"{run}.json") or read_json(path).get("spec")
        try:
            return AttackSpec.model_validate_json(canonical_json(raw), context=AS_WRITTEN)
        except (ValidationError, UserError):
            return None

    def _steps(self, attack: Any, spec: AttackSpec, facts: int) -> float:
        """Return the steps of a training with so many facts in T; NaN where it is not known who has sentences."""
        audit = self._json("data", spec.facts.run_id, "audit.json")
        sentences = audit.get("texts", {}).get("sentences")
        kept = spec.facts.policy.missing_text == "keep" and audit.get("defects", {}).get("missing_text")
        if getattr(spec.settings, "sentences", False) and (sentences is None or kept):
            return math.nan
        trained = attack.cost(spec.settings, facts, Counted(bool(sentences))).trained
        steps = {steps for _, steps, _ in trained}
        return float(steps.pop()) if len(steps) == 1 else math.nan

    def _parameters(self, spec: AttackSpec) -> float:
        """Return the number of the model's parameters: of the miniature, of the model file, or of the import."""
        base = spec.source
        while hasattr(base, "base"):
            base = base.base
        if isinstance(base.model, Model):
            return float(miniature_parameters(base.model))
        said = base.model.parameters or self._json("manifests", f"{base.run_id}.json").get("parameters")
        return float(said) if said else math.nan

    def _json(self, *names: str) -> dict[str, Any]:
        path = self.root.joinpath(*names)
        found = read_json(path) if path.is_file() else {}
        return found if isinstance(found, dict) else {}


def cost_table(
    arms: Sequence[ArmScores],
    root: Path,
    variant: str = DEFAULT,
    probes: Sequence[str] = PROBES,
    attacks: Sequence[str] = FIRST_ATTACK,
) -> pd.DataFrame:
    """Return cost.csv: a row per model, probe and look of an attack that trains on T, and one before the attack.

    root: the results folder, whose specs, audits and manifests say what a look took. Accuracies are means over the
    repeats of unlearning and of the attack. `probes` and `attacks` give their order.
    """
    rows, works = [], Works(root)
    for arm in arms:
        names = sorted(arm.attack_names(), key=lambda name: place(attacks, name))
        for name in names:
            for head, before_it, after in _models(arm, name):
                work = works.of(after[0])
                if work is not None:
                    rows += [head | {"attack": name} | row for row in _rows(before_it, after, work, probes)]
    table = pd.DataFrame([row | {"variant": variant} for row in rows], columns=COLUMNS)
    numbers = ("retain_budget", "step", "tokens", "flops", "accuracy", "low", "high", "accuracy_t")
    return table.astype(dict.fromkeys(numbers, float))


Before = list[tuple[PointScores, int]]  # a model's points before the attack, one for each repeat of unlearning


def _models(arm: ArmScores, name: str) -> Iterator[tuple[dict[str, Any], Before, list[AttackScores]]]:
    """Yield each model of an arm that an attack was made on: what names it, and its scores before it and after it."""
    dataset, arm_name, model, seed = arm.key
    key = {"dataset": dataset, "arm": arm_name, "model": model, "seed": seed}
    alone = {"method": NONE, "retain_budget": math.nan}
    original = arm.original_attacked.get(name)
    if original is not None and not isinstance(original, Suite):
        yield {**key, **alone, "stage": "original"}, [(arm.original, 0)], [original]
    for method, budget in dict.fromkeys((method, budget) for method, budget, _ in in_order(arm.chosen)):
        repeats = [repeat for m, b, repeat in in_order(arm.chosen) if (m, b) == (method, budget)]
        found = {repeat: arm.attacks.get((name, method, budget, repeat)) for repeat in repeats}
        found = {repeat: one for repeat, one in found.items() if isinstance(one, AttackScores) and one.settings}
        if found:
            points = [arm.point(method, budget, repeat) for repeat in found]
            yield {**key, "method": method, "retain_budget": budget, "stage": "unlearned"}, points, [*found.values()]
    for stage, others, own in (("oracle", arm.oracles, arm.oracle), ("control", arm.controls, arm.control)):
        if isinstance(one := others.get(name), AttackScores):
            same = own is not None and own.forget.ids == one.questions.ids
            yield {**key, **alone, "stage": stage}, [(own, 0)] * same, [one]


def _rows(
    before_it: Before, after: Sequence[AttackScores], work: Work, probes: Iterable[str]
) -> Iterator[dict[str, Any]]:
    first, groups = after[0], v_groups(after[0])
    positions, _ = v_view(first)
    none = dict(setting="", epoch=0, step=0.0, tokens=0.0, flops=0.0)
    for probe in (one for one in probes if all(one in scores.correct for scores in after)):
        if before_it and all(probe in points.forget_correct for points, _ in before_it):
            correct = np.mean([before(points, at, probe).correct for points, at in before_it], axis=0)
            on_t = [correct[[split != v for split in first.questions.splits]] for v in first.v_splits]
            on_t = np.concatenate(on_t)
            yield {**none, "probe": probe, **_on_v(correct[positions], groups), **_on_t(on_t.sum(), len(on_t))}
        for look, setting in enumerate(first.settings):
            share = setting["epoch"] / work.epochs
            correct = np.mean([v_correct(scores, probe)[:, look].mean(axis=0) for scores in after], axis=0)
            every = [(look, v) for v in range(len(first.v_splits))]
            counts = [t_at(scores, probe, [every] * len(scores.correct[probe])) for scores in after]
            yield {
                **dict(setting=setting_text(setting), epoch=setting["epoch"], probe=probe),
                **dict(step=share * work.steps, tokens=share * work.tokens, flops=float(np.round(share * work.flops))),
                **_on_v(correct, groups),
                **_on_t(np.mean([right for right, *_ in counts]), counts[0][1]),
            }


def _on_v(correct: np.ndarray, groups: Sequence[str]) -> dict[str, Any]:
    low, high = interval(correct, groups)
    return dict(n_questions=len(correct), accuracy=float(correct.mean()), low=low, high=high)


def _on_t(right: float, n: int) -> dict[str, Any]:
    return dict(n_t=int(n), accuracy_t=float(right) / n)
