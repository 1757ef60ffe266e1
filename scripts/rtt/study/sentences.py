"""Check, before any job, that a user's folders hold the sentences that a study trains on. The names of files tell."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from rtt.errors import UserError
from rtt.listing import jsonl_files
from rtt.study import plugins
from rtt.study.names import SENTENCE_LOSSES
from rtt.study.specs import AttackSpec, DataSpec, External, Spec, TeachSpec, TextsSpec, UnlearnSpec

# What a method trains on -> prefix of the files of such sentences (docs/data.md).
PREFIX = {"true": "corpus_", "random_wrong": "whp_corpus_", "fixed_wrong": "fwf_corpus_"}
NAMES = {"true": "true", "random_wrong": "RIA", "fixed_wrong": "FIF"}


@cache
def _held(folder: Path) -> frozenset[str]:
    """Return the kinds of sentences that a folder has files of."""
    names = [path.stem for path in jsonl_files(folder)]
    return frozenset(
        kind for kind, prefix in PREFIX.items() if any(n.startswith(prefix) and n != f"{prefix}dev" for n in names)
    )


def check_sentences(specs: Iterable[Spec], root: Path) -> None:
    """Raise UserError for a run that trains on sentences of which a folder has no file.

    A folder without any sentences is shown as questions, as long as `mcq_share` asks for some. Data that are fetched or
    generated are not looked at.
    """

    def lacks(facts: DataSpec, kind: str, share: float) -> str | None:
        """Return why facts cannot be trained on in this way."""
        if share == 1 or facts.raw.files is None or facts.raw.files.folder is None:
            return None
        held = _held(root / facts.raw.files.folder)
        if kind in held or (not held and share > 0):
            return None
        return f"{facts.raw.files.folder} has no {PREFIX[kind]}*.jsonl, the {NAMES[kind]} sentences"

    for spec in specs:
        wanted: list[tuple[str, DataSpec, str, float]] = []
        if isinstance(spec, TeachSpec) and getattr(spec.training, "loss", None) in SENTENCE_LOSSES:
            parts = [spec.facts, *([spec.also_taught] if spec.also_taught else [])]
            wanted = [(f"teaching.loss: {spec.training.loss}", facts, "true", 0.0) for facts in parts]
        elif isinstance(spec, AttackSpec):
            facts = {"T": spec.facts, "retain": spec.retain and spec.retain.learn}
            wanted = [
                (f"attacks.{spec.attack}.{key}", facts[whose], "true", 0.0)
                for whose, key in spec.plugin.sentences_of(spec.settings).items()
                if isinstance(facts[whose], DataSpec)
            ]
        elif isinstance(spec, UnlearnSpec) and not isinstance(spec.settings, External):
            share, learn = spec.settings.mcq_share, spec.source.retain.learn
            key = f"methods.{spec.method}.mcq_share: {share}"
            if not spec.texts:
                wanted = [(key, spec.source.facts, plugins.methods()[spec.method].texts, share)]
            if not isinstance(learn, TextsSpec):
                wanted.append((f"{key}, of the retain texts", learn, "true", share))
        for key, facts, kind, share in wanted:
            if why := lacks(facts, kind, share):
                advice = "set mcq_share to 1" if "mcq_share" in key else "choose a loss of MCQs"
                advice = "leave it out" if "shares" in key else advice
                raise UserError(f"{key}: {why}; {advice}, or write these sentences")
