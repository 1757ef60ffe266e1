"""Step `attack`: run one attack on the checkpoints of one arm, or on a control.

For each checkpoint and V split, the attack gets the checkpoint, the facts of T, and what had to stay if it uses that;
it runs in an empty folder. Each model or other asker that it makes is asked every question, without keys; one of an
attack that trains nothing on T is asked those of V alone. One process attacks all checkpoints of its spec, and restores
the weights in between.

Inputs: an AttackSpec, the original model (for the control: the model that never saw the facts), the canonical facts,
and for unlearned targets the chosen weights and point choices of each method. Outputs: a folder with one evaluation
JSON (kind `attacked`) per target, and a manifest.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path

from rtt import distributed
from rtt.attacks.base import Asker, Attack, Checkpoint
from rtt.checksums import verify_file
from rtt.code_version import code_version
from rtt.data.facts import Fact, read_facts
from rtt.data.retain import read_learned, read_splits
from rtt.data.text import AS_TRAINED
from rtt.errors import UserError
from rtt.files import read_json, sha256
from rtt.models.load import load, model_hash, weights
from rtt.models.points import load_point
from rtt.scoring import sampled
from rtt.scoring.manifest import Manifest
from rtt.scoring.score import Scorer
from rtt.scoring.write import attack_labels, write_eval
from rtt.steps.original import scorer_of
from rtt.study.names import budget_name
from rtt.study.specs import AttackSpec, load_spec
from rtt.training.resume import State
from rtt.training.train import prepare_torch, start_dtype


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `attack`."""
    parser.add_argument("--spec", required=True)
    parser.add_argument(
        "--also",
        nargs="*",
        default=[],
        metavar="SPEC",
        help="specs of other attacks on the same checkpoints: they share the loaded model, and what they write gets "
        "their runs' names, beside --evals, --manifest and --state",
    )
    parser.add_argument(
        "--source",
        required=True,
        help="folder of the original model (for the control: the one that never saw the facts)",
    )
    parser.add_argument("--facts", required=True, help="canonical facts, split into T and V")
    parser.add_argument(
        "--chosen", nargs="*", default=[], help="folders of the chosen weights, in the order of the spec's methods"
    )
    parser.add_argument("--point-choices", nargs="*", default=[], help="point choice files, in the same order")
    parser.add_argument("--shots", nargs="*", default=[], help="retain facts, for the probe few_shot alone")
    parser.add_argument("--retain", nargs="*", default=[], help="what had to stay, for an attack that uses it")
    parser.add_argument("--evals", required=True, type=Path, help="folder for one evaluation JSON per target")
    parser.add_argument("--manifest", required=True)
    parser.add_argument("--state", type=Path, help="folder from which a killed run resumes; none: nothing is kept")


def attacked_facts(spec: AttackSpec, path: str) -> list[Fact]:
    """Return the facts of an attack: all but those that are set apart for the point choice.

    Raises UserError when none remains.
    """
    every = read_facts(path)
    facts = [fact for fact in every if fact.split not in spec.left_out]
    if every and not facts:
        apart = ", ".join(spec.left_out)
        raise UserError(f"{path}: point_choice.splits sets all facts apart: {apart}; nothing is left to attack")
    return facts


def folds(facts: Sequence[Fact], attack: Attack) -> list[str | None]:
    """Return the splits that serve as V, in the facts' order; [None] for an attack that uses no T.

    Raises UserError where there are fewer splits than the attack needs.
    """
    if not attack.uses_t:
        return [None]
    splits, wanted = list(dict.fromkeys(fact.split for fact in facts)), attack.v_splits(attack.settings)
    if len(splits) < 2:
        raise UserError(f"the facts have only one split, {splits[0]}; {attack.name} needs at least two, for T and V")
    if (wanted or 0) > len(splits):
        raise UserError(f"{attack.name}.v_splits: found {wanted}, but the facts have {len(splits)} splits")
    return splits[:wanted]


class Attacker:
    """Run one attack, `repeats` times, on checkpoint after checkpoint, and score its models.

    scorer: makes a Scorer of facts; its keywords `prompts` and `soft` are a Scorer's. retain: the facts or the texts
    that had to stay. `state` holds what a killed run had done.
    """

    def __init__(
        self,
        attack: Attack,
        model,
        tokenizer,
        facts: list[Fact],
        scorer: Callable[..., Scorer],
        seed: int,
        state: State,
        repeats: int = 1,
        retain: Sequence[Fact] | Sequence[str] = (),
    ):
        self.attack, self.model, self.tokenizer, self.facts = attack, model, tokenizer, facts
        self.seed, self.state = seed, state
        self.scorer = lru_cache(maxsize=16)(
            lambda split, **asked: scorer([fact for fact in facts if split in (None, fact.split)], **asked)
        )
        self.runs = [(repeat, v_split) for repeat in range(repeats) for v_split in folds(facts, attack)]
        self.folds, self.settings = folds(facts, attack), attack.choices(attack.settings)
        of_facts = bool(retain) and isinstance(retain[0], Fact)
        self.retain, self.plain = (retain, ()) if of_facts else ((), retain)

    def on(self, name: str, progress, unlearning_repeat: int = 0) -> list[dict]:
        """Attack the model as it is loaded now, and restore its weights; return the looks.

        `name` names the checkpoint in the state, `unlearning_repeat` is which repeat of unlearning it comes from;
        `progress()` is called after each V split.
        """
        start = weights(self.model)
        restore, memo = partial(self.model.load_state_dict, start), {}
        for repeat, v_split in self.runs:
            t_facts = [fact for fact in self.facts if fact.split != v_split] if self.attack.uses_t else []
            fold = self.folds.index(v_split) if self.attack.uses_t else None
            checkpoint = Checkpoint(
                self.model, self.tokenizer, self.seed, fold, restore,
                partial(self._once, self._key(name, repeat, v_split)), repeat, unlearning_repeat, self.retain,
                self.plain, memo,
            )  # fmt: skip
            with tempfile.TemporaryDirectory(prefix="rtt-attack-") as empty, contextlib.chdir(empty):
                self.attack.fit(checkpoint, t_facts, partial(self._look, name, repeat, v_split))
            restore()
            progress()
        return [
            self._kept(name, repeat, v_splits, setting)
            for repeat, v_splits in self._looks()
            for setting in self.settings
        ]

    def _looks(self) -> list[tuple[int, list[str | None]]]:
        """Return (repeat, the V splits whose answers one look holds) of the looks at one setting."""
        if self.attack.asks_t():
            return [(repeat, [v_split]) for repeat, v_split in self.runs]
        return [(repeat, self.folds) for repeat in dict.fromkeys(repeat for repeat, _ in self.runs)]

    @staticmethod
    def _key(name: str, repeat: int, v_split: str | None) -> str:
        return f"{name}-{v_split}" + (f"-r{repeat}" if repeat else "")

    def _kept(self, name: str, repeat: int, v_splits: list[str | None], setting: dict) -> dict:
        """Return a look from the state; where each V split had an asker of its own, with the answers of all."""
        parts = [self.state.results[f"{self._key(name, repeat, v_split)} {setting}"] for v_split in v_splits]
        if len(parts) == 1:
            return parts[0]
        by_id = {question["id"]: question for part in parts for question in part["questions"]}
        return {**parts[0], "v_split": None, "questions": [by_id[fact.id] for fact in self.facts]}

    def _look(self, name: str, repeat: int, v_split: str | None, setting: dict, asker) -> None:
        """Ask every question, or those of V where T is not asked, unless that was done before a kill."""
        key = f"{self._key(name, repeat, v_split)} {setting}"
        if key in self.state.results:
            return

        def role(fact: Fact) -> str:
            return "V" if v_split in (None, fact.split) else "T"

        asker = asker if isinstance(asker, Asker) else Asker(asker)
        of = None if self.attack.asks_t() else v_split
        if asker.sample:
            asked = [fact for fact in self.facts if of in (None, fact.split)]
            questions = sampled.questions(asked, asker.sample, role)
        else:
            scorer = self.scorer(of, prompts=asker.prompts or AS_TRAINED, soft=asker.soft)
            questions = scorer.questions(asker.model, role, asker.score)
        self.state.keep(key, {
            **dict(attack=self.attack.name, setting=setting, v_split=v_split, repeat=repeat), "questions": questions
        })  # fmt: skip

    def _once(self, prefix: str, name: str, train) -> None:
        """Run a training, unless it had ended before a kill; then delete its checkpoints."""
        key = f"{prefix}-{name}"
        if key in self.state.results:
            return
        folder = self.state.training(key)
        self.state.keep(key, {"trained": train(folder)})
        if folder and distributed.is_main():
            shutil.rmtree(folder, ignore_errors=True)


def run(args: argparse.Namespace) -> int:
    """Attack every target by the spec's attack, and by those of --also, with the model loaded once."""
    specs = [load_spec(path, "attack") for path in (args.spec, *args.also)]
    spec = specs[0]
    for path, other in zip(args.also, specs[1:], strict=True):
        if other.checkpoints != spec.checkpoints:
            raise UserError(f"{path}: not on the checkpoints and in the precision of {args.spec}; attack alone with it")
    if not len(args.chosen) == len(args.point_choices) == len(spec.point_choices):
        raise UserError(
            f"{args.spec}: the spec has {len(spec.point_choices)} point choices, of each method and repeat of its "
            "unlearning; give as many --chosen and --point-choices"
        )
    manifest = Manifest("attack", spec, spec.attack)
    prepare_torch(spec.seed)
    chosen = _chosen(spec, args.chosen, args.point_choices)
    for (trajectory, _), weights_file in filter(None, chosen.values()) if distributed.is_main() else ():
        verify_file(weights_file, _again(weights_file, trajectory))
    model, tokenizer = load(args.source, start_dtype(spec.plugin.precision(spec.settings)))
    original = weights(model) if len(specs) > 1 else {}
    for one in specs:
        if one is not spec:
            model.load_state_dict(original)
            manifest = Manifest("attack", one, one.attack)
        _attack(one, args, model, tokenizer, chosen, manifest)
    return 0


def _attack(spec: AttackSpec, args: argparse.Namespace, model, tokenizer, chosen: dict, manifest: Manifest) -> None:
    """Attack every target of one spec; a checkpoint that several budgets share is attacked once.

    model: with the weights of the original. chosen: as `_chosen` returns it.
    """
    code, attack = code_version("attack", spec.attack), spec.plugin(spec.settings)
    evals, made, folder = args.evals, args.manifest, args.state and Path(args.state).absolute()
    if Path(args.spec).stem != spec.run_id:  # one of --also
        evals, made = Path(evals).with_name(spec.run_id), Path(made).with_name(f"{spec.run_id}.json")
        folder = folder and folder.with_name(spec.run_id)
    facts, state = attacked_facts(spec, args.facts), State(folder, {"run": spec.run_id, "code": code})
    learn = [fact for path in args.shots for fact in read_splits(path, spec.shots.learn_splits)]
    stay = [one for path in args.retain[:1] if spec.retain for one in read_learned(spec.retain, path)]

    def scorer(some: list[Fact], **asked) -> Scorer:
        return scorer_of(spec, tokenizer, some, learn, answers=attack.answers, **asked)

    attacker = Attacker(attack, model, tokenizer, facts, scorer, spec.seed, state, spec.repeats, stay)
    starts = [
        chosen[target.method, target.repeat, target.retain_budget] if target.method else ORIGINAL
        for target in spec.targets
    ]
    progress = Countdown(attack.title, len({point for point, _ in filter(None, starts)}) * len(attacker.runs))
    attacked: dict[tuple, list[dict]] = {}
    for target, start in zip(spec.targets, starts, strict=True):
        point, weights_file = start or (None, None)
        if start and point not in attacked:
            if weights_file:
                load_point(model, weights_file, args.source)
            attacked[point] = attacker.on(f"{point[0]}-{point[1]}", progress, target.repeat)
        attacked_sha256 = sha256(weights_file) if weights_file else model_hash(args.source)
        write_eval(
            evals / f"{target.name}.json",
            kind="attacked",
            run_id=f"{spec.run_id}.{target.name}",
            labels=attack_labels(spec, target),
            spec=spec,
            code=code,
            facts_sha256=sha256(args.facts),
            model_sha256=attacked_sha256 if start else None,
            looks=attacked[point] if start else [],
            status="ok" if start else "none_within_budget",
        )
    read = [args.source, args.facts, *args.chosen, *args.point_choices, *args.shots, *(args.retain if stay else ())]
    manifest.write(made, model, read=read, made=[evals], **_trained(state))
    state.finish()


def _again(weights_file: Path, trajectory: str) -> str:
    """Return what to do about chosen weights that are damaged: they are hard links to those of their trajectory."""
    models = weights_file.parents[1]
    return f"delete {weights_file.parent} and {models / trajectory}, and start the study again: it unlearns once more"


ORIGINAL = (("original", 0), None)  # ((run, step), weights file): the model as it was loaded


def _trained(state: State) -> dict:
    """Return the manifest's part on trainings: their number, their tokens, and the mean effective update by rate."""
    found = [kept["trained"] for kept in state.results.values() if "trained" in kept]
    moved: dict[float, list[float]] = {}
    for one in found:
        moved.setdefault(one["lr"], []).append(one["effective_update"])
    updates = {f"{rate:g}": sum(shares) / len(shares) for rate, shares in moved.items()}
    return {"trainings": len(found), "effective_update": updates, "tokens": sum(one["tokens"] for one in found)}


def _chosen(spec: AttackSpec, folders: list[str], point_choices: list[str]) -> dict:
    """Return {(method, repeat, budget): ((run, step), weights of that point), or None where no point is admitted}.

    Raises UserError where a folder or a point choice belongs to another run than the spec names, so that no model is
    attacked under another's name.
    """
    points = {}
    for choice, folder, path in zip(spec.point_choices, folders, point_choices, strict=True):
        document = read_json(path)
        for place, found in ((folder, Path(folder).name), (path, document["run_id"])):
            if found != choice.run_id:
                raise UserError(f"{place}: found {found}, expected the {choice.method} point choice {choice.run_id}")
        for budget, point in document["selected"].items():
            file = Path(folder) / f"{budget_name(float(budget))}.safetensors"
            found = ((point["run"], point["step"]), file) if point else None
            points[choice.method, choice.repeat, float(budget)] = found
    return points


class Countdown:
    """Print after each attacked V split of a checkpoint how many are done, and how long the others will take."""

    def __init__(self, title: str, runs: int):
        self.title, self.runs, self.done, self.begin = title, runs, 0, time.monotonic()

    def __call__(self) -> None:
        """Count one V split as done."""
        self.done += 1
        left = (time.monotonic() - self.begin) / self.done * (self.runs - self.done)
        print(f"{self.title} run {self.done} of {self.runs}, about {left:.0f} s left", file=sys.stderr, flush=True)
