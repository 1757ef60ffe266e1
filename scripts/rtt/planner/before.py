"""Find, before the first job, what a later step would refuse: `rtt check` and the Snakefile ask here. No torch.

A study file alone shows most mistakes (`rtt.study`). Those here need the facts, as far as they lie on this machine: the
user's folders and what a seed generates. Fetched datasets are judged by their names.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cached_property

from rtt.data.build import build_facts
from rtt.data.facts import Fact
from rtt.data.reader import same
from rtt.errors import UserError
from rtt.planner.resources import Resources
from rtt.study.expand import Runs
from rtt.study.specs import AttackSpec, DataSpec, OriginalSpec, RawSpec, TeachSpec, TextsSpec

SHOWN = 10
OVERRIDE = "memory_check"


class Before:
    """What is known of a study before anything runs. The study's relative paths start from `runs.root`."""

    def __init__(self, runs: Runs):
        self.runs, self.study, self._read = runs, runs.study.study, {}

    def check(self) -> None:
        """Raise UserError that lists the mistakes found, each in a line."""
        found = list(dict.fromkeys(self._mistakes()))
        if found:
            more = [f"{len(found) - SHOWN} more mistakes"] if len(found) > SHOWN else []
            raise UserError("\n".join(f"study {self.study}: {line}" for line in [*found[:SHOWN], *more]))

    def _mistakes(self) -> Iterator[str]:
        yield from self._files()
        broken = []
        for spec in self.runs.data.values():
            try:
                self._facts(spec)
            except UserError as error:
                broken.append(f"data.datasets.{spec.dataset}: {error}")
        yield from broken
        if not broken:
            for source in self.runs.sources.values():
                yield from self._retained(source)
            for attack in self.runs.attacks.values():
                yield from self._splits(attack)
            yield from self._controls()

    def _files(self) -> Iterator[str]:
        for spec in self.runs.imports.values():
            gguf = spec.model.gguf
            if gguf and not gguf.wheel and not self._mirrored and not (self.runs.root / gguf.file).is_file():
                yield f"model.gguf.file: {gguf.file}: no such file; correct the path, or name a mirror that has it"

    @cached_property
    def _mirrored(self) -> bool:
        return bool(self.runs.study.data.mirror)

    def _facts(self, spec: DataSpec) -> list[Fact] | None:
        """Return the facts of a user's folder; None of any other dataset."""
        folder = spec.raw.files.folder if spec.raw.files else None
        if folder is None:
            return None
        if spec.run_id not in self._read:
            policy, place = spec.policy.model_dump(), self.runs.root / folder
            read = build_facts(
                place, spec.dataset, spec.splits, policy, spec.seed, spec.facts_per_split, spec.distractors
            )
            self._read[spec.run_id] = read[0]
        return self._read[spec.run_id]

    def _sizes(self, spec: DataSpec) -> dict[str, int | None] | None:
        """Return {split: number of facts}, None for an unknown number; None where even the splits are unknown."""
        if (facts := self._facts(spec)) is not None:
            return dict(Counter(fact.split for fact in facts))
        generated = spec.raw.people or spec.raw.birthdays
        names = spec.splits or ([f"split_{i}" for i in range(generated.splits)] if generated else None)
        return names and dict.fromkeys(names, spec.facts_per_split)

    def _shared(self, one: DataSpec, ones, other: DataSpec, others) -> str | None:
        """Return what two datasets share, of the splits named (None: all): facts where they are known, else splits."""
        if _place(one.raw) == _place(other.raw):
            a, b = ones or one.splits, others or other.splits
            if a is None or b is None or (both := [split for split in a if split in b]):
                what = "all splits" if a is None or b is None else f"splits {', '.join(both)}"
                return f"{what} of the same files"
        facts, more = self._facts(one), self._facts(other)
        if facts is None or more is None:
            return None
        known = {_content(fact): fact for fact in facts if ones is None or fact.split in ones}
        twice = [fact for fact in more if (others is None or fact.split in others) and _content(fact) in known]
        if not twice:
            return None
        first = twice[0].origin
        return (
            f"{len(twice)} of {len(more)} facts, the first {first['file']}:{first['line']}, {twice[0].question!r:.60}"
        )

    def _retained(self, source) -> Iterator[str]:
        """Say which retain facts are facts to forget."""
        retain, forget = source.retain, source.facts
        sides = [("retain_eval", retain.held_out, retain.held_out_splits)]
        if not isinstance(retain.learn, TextsSpec):
            sides.append(("retain", retain.learn, retain.learn_splits))
        if isinstance(source, TeachSpec) and source.also_taught:
            sides.append(("also_taught", source.also_taught, None))
        for key, spec, splits in sides:
            if both := self._shared(forget, None, spec, splits):
                yield (
                    f"tasks: {key} of {forget.dataset}: what must stay is also what is unlearned: {both}; name other "
                    "facts, or other splits"
                )

    def _splits(self, attack: AttackSpec) -> Iterator[str]:
        """Say where an attack that divides the facts into T and V has too few splits."""
        names = list(self._sizes(attack.facts) or ())
        if not attack.plugin.uses_t or not names:
            return
        wanted = attack.plugin.v_splits(attack.settings) or 0
        if len(names) < 2:
            yield (
                f"data.datasets.{attack.facts.dataset}: only one split, {names[0]}; {attack.attack} needs at least "
                "two, for T and V"
            )
        elif wanted > len(names):
            yield (
                f"attacks.{attack.attack}.v_splits: found {wanted}, but {attack.facts.dataset} has {len(names)} splits"
            )

    def _controls(self) -> Iterator[str]:
        """Say where a control holds facts that its model knows, has another size than its arm, or is not alone."""
        for evals in (variant["evals"] for variant in self.runs.variants.values()):
            named = {stem.partition("/")[0] for stem in evals}
            controls = [spec for run, spec in self.runs.attacks.items() if run in named and spec.arm == "control"]
            sources = [spec for run, spec in self.runs.sources.items() if run in named]
            for source in sources:
                own = {one.facts.dataset for one in sources if (one.arm, one.seed) == (source.arm, source.seed)}
                for attack in dict.fromkeys(control.attack for control in controls):
                    fits = [one for one in controls if one.attack == attack and one.seed == source.seed]
                    yield from self._control(source, [one for one in fits if source.arm in one.control_for], own)

    def _control(self, source, controls: list[AttackSpec], datasets: set[str]) -> Iterator[str]:
        """Judge the controls of an arm as `rtt.stats.assemble` will take them."""
        for control in controls:
            name = control.facts.dataset
            known = [(source.facts, None, "which are unlearned")] if isinstance(source, OriginalSpec) else []
            sides = [(source.retain.learn, source.retain.learn_splits), (source.retain.held_out, None)]
            known += [(spec, splits, "which must stay") for spec, splits in sides if isinstance(spec, DataSpec)]
            for facts, splits, why in known:
                if both := self._shared(facts, splits, control.facts, None):
                    yield f"tasks: control {name}: the model knows these facts, {why}: {both}; name others"
                    break
        own = [one for one in controls if one.facts.dataset == source.facts.dataset]
        fits = own or [one for one in controls if one.facts.dataset not in datasets]
        if len({one.facts.run_id for one in fits}) > 1:
            names = ", ".join(f"{f.facts.dataset} ({f.facts.facts_per_split or 'all'} facts per split)" for f in fits)
            yield (
                f"tasks: arm {source.arm} has {len(fits)} controls: {names}; the tables take one: name one control for "
                "all tasks of an arm, with one facts_per_split, or divide the study"
            )
        elif fits and fits[0].plugin.uses_t:
            wanted = fits[0].plugin.v_splits(fits[0].settings)
            mine, others = (list((self._sizes(f) or {}).values())[:wanted] for f in (source.facts, fits[0].facts))
            if mine and others and None not in mine + others and mine != others:
                yield (
                    f"tasks: control {fits[0].facts.dataset}: its splits have {others} facts, those of "
                    f"{source.facts.dataset} {mine}; a control needs as many: set facts_per_split: "
                    f"{min(mine + others)} in data.datasets.{source.facts.dataset}, and as many splits"
                )


def _place(raw: RawSpec) -> tuple:
    """Return what decides a dataset's facts: those with the same value speak of the same things."""
    if raw.files:
        return "files", raw.files.digest
    if raw.birthdays:  # the dataset's name decides nothing, and the people of fewer facts are the first of more
        return "birthdays", raw.seed
    return "people", raw.run_id


def _content(fact: Fact) -> tuple[str, str]:
    return same(fact.question), same(fact.choices[fact.answer])


def check_fits(needs: Resources, runs: Runs) -> None:
    """Raise UserError for training that cannot fit the device or the node that the site file names."""
    if problem := needs.too_large():
        raise UserError(
            f"study {runs.study.study}: {problem}; `python -m rtt plan` shows what fits where, with which devices and "
            f"deepspeed. To submit it all the same: --config {OVERRIDE}=false"
        )
