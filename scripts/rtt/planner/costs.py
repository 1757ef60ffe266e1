"""Compute what one run of a study costs in tokens, FLOPs and bytes, from its spec, in closed forms.

No torch and no model is needed. docs/plan.md says what is counted and what is not.
"""

import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

from rtt.data.build import build_facts
from rtt.data.facts import LETTERS, Fact, read_facts
from rtt.data.generate import generate
from rtt.data.reader import role
from rtt.data.size import miniature_parameters
from rtt.data.text import SHOTS, cloze
from rtt.errors import UserError
from rtt.files import canonical_json, natural
from rtt.study import plugins, sources
from rtt.study.model_file import ModelFile
from rtt.study.model_folder import count_weights
from rtt.study.names import SENTENCE_LOSSES
from rtt.study.part import Part
from rtt.study.settings import Model, Pretraining, Teaching, Training
from rtt.study.specs import DataSpec, External, TextsSpec, UnlearnSpec

AUTHORS_PER_SPLIT = 157
SENTENCES = 3  # sentences of a fact in the authors' files (docs/paper.md), each of which an epoch of unlearning shows
# Of a weight, of its gradient, of each optimizer state.
BYTES = {"fp32": 4, "bf16_mixed": 4, "bf16_kahan": 2, "bf16": 2, "fp16": 2}
# How often a step reads or writes a value per trained parameter, counted in the code of lion-pytorch (19) and of
# torch's foreach AdamW (20), with gradient clipping (3) and the gradient itself (1).
PASSES = {"adamw": 24, "lion": 23}
# The same in `rtt.training.kahan`, whose fp32 slices are taken to stay in the device's cache; with the norm of the
# gradients or clipping (3) and the gradient itself (1), which release only writes and reads for its norm (2).
KAHAN_PASSES, WHOLE_GRADIENT, RELEASED_GRADIENT = {"adamw": 13, "lion": 9}, 4, 2
# Bytes of an evaluation JSON, measured on the miniature: per scored question, per probe of it, and per file (its spec).
QUESTION_BYTES, PROBE_BYTES, FILE_BYTES = 115, 69, 6000
MORE_BYTES = {"letter_permuted": 10, "likelihood": 36, "likelihood_fresh": 19}  # what stands beside the scores
CHARACTERS = 4.5  # assumed per token of English prose, to count what `max_characters` leaves of a plain text


@dataclass(frozen=True)
class Texts:
    """Mean tokens of each text of a fact, without BOS and padding.

    `prompt` is the MCQ up to "Answer:" and `mcq` the MCQ with letter and answer; `question` is the question without
    choices up to "Answer:" and `answered` that with the answer. `choice` is one of the `choices`, and `sentence`, `ria`
    and `fif` are one of three each. `chance` is the mean of one over the number of choices. `begun` is what stands
    before the choice in a cloze, and `ended` the choice and what follows; 0: unknown, and taken to be a sentence that
    ends with the choice.
    """

    prompt: float
    mcq: float
    question: float
    answered: float
    choice: float
    sentence: float
    ria: float
    fif: float
    choices: float = 4.0
    chance: float = 0.25
    begun: float = 0.0
    ended: float = 0.0

    @property
    def asked(self) -> float:
        """Return the mean tokens of a fact's two prompts, with choices and without."""
        return self.prompt + self.question

    @property
    def solved(self) -> float:
        """Return the mean tokens of a fact's MCQ and its question, each with the answer."""
        return self.mcq + self.answered

    def trained(self, loss: str) -> float:
        """Return the mean tokens of a training text of a fact, an MCQ or a sentence, with the loss `loss`."""
        if loss == "LETTER":
            return self.prompt + 1
        return {"QUESTION_ANSWER": self.answered, "CORPUS": self.sentence}.get(loss, self.mcq)

    def passes(
        self, facts: int, loss: str, epochs: int, batch_size: int, samples: int | None, sentences: bool = False
    ) -> tuple:
        """Return (steps, tokens) of `rtt.training.order.training_passes`: every epoch is filled up to whole batches.

        With `sentences` an epoch shows a sentence beside each question, where the facts have any.
        """
        of_sentences = loss in SENTENCE_LOSSES
        both = sentences and not of_sentences and self.sentence > 0
        shown = min(samples or facts, facts) * (SENTENCES if of_sentences else 1 + both)
        steps, mean = -(-shown // batch_size) * epochs, self.trained("CORPUS" if of_sentences else loss)
        return steps, steps * batch_size * ((mean + self.sentence) / 2 if both else mean)

    def told(self, kind: str) -> float:
        """Return the mean tokens of a sentence to forget; `kind` as in `rtt.methods.base.TEXTS`."""
        return {"true": self.sentence, "random_wrong": self.ria, "fixed_wrong": self.fif}[kind]

    def scored(self, probes: Sequence[str]) -> float:
        """Return the mean tokens that a model reads to score a fact by these probes (`rtt.study.names.ASKED`).

        It reads each prompt once, and each continuation but its last token. The first rotation is the question as
        `letter` asks it. Fresh choices count as long as the choices, and solved questions as long as these.
        """
        permuted, by_likelihood = "letter_permuted" in probes, [one for one in probes if one.startswith("likelihood")]
        total = self.prompt * (self.choices if permuted else "letter" in probes)
        if "few_shot" in probes:
            total += self.prompt + SHOTS * self.mcq
        if by_likelihood:
            total += self.question + len(by_likelihood) * self.choices * (self.choice - 1)
        if "cloze" in probes:
            begun, ended = (self.begun, self.ended) if self.ended else (self.sentence - self.choice, self.choice)
            total += begun + self.choices * (ended - 1)
        return total


@dataclass(frozen=True)
class Facts:
    """A dataset as a run sees it: the number of facts in each split, in order, and their texts.

    `exact` is true if the facts were read or generated.
    """

    splits: dict[str, int]
    texts: Texts
    exact: bool

    def __len__(self) -> int:
        return sum(self.splits.values())


@dataclass(frozen=True)
class Plain:
    """Plain texts that an attack uses: their number, and the mean tokens of one."""

    count: int
    mean: float

    def __len__(self) -> int:
        return self.count

    @property
    def texts(self) -> "Plain":
        """Return these, which tell their own tokens."""
        return self

    @property
    def sentence(self) -> float:
        """Return the mean tokens of a text, as `Texts` those of a sentence."""
        return self.mean

    asked = solved = sentence  # a text has nothing else to show

    def passes(
        self, facts: int, loss: str, epochs: int, batch_size: int, samples: int | None, sentences: bool = False
    ) -> tuple:
        """Return (steps, tokens) as `Texts.passes`: each text once in an epoch, whatever the loss."""
        steps = -(-min(samples or facts, facts) // batch_size) * epochs
        return steps, steps * batch_size * self.mean


# Mean tokens on the authors' files (26be6ba), by SmolLM2's tokenizer: every digit is a token there; Llama-3's takes up
# to three digits in one, so its texts are shorter. tests/planner/test_plan.py holds them to the files. A dataset that
# is not here is taken to be as long as MMLU's shorter half.
TYPICAL = {
    "years": Texts(59.2, 66.2, 27.2, 32.2, 5.0, 22.5, 22.2, 23.0),
    "mmlu": Texts(67.9, 77.0, 28.2, 35.4, 6.9, 42.2, 41.9, 40.9),
    "mmlu_long": Texts(148.8, 162.1, 91.8, 103.1, 11.2, 89.9, 89.2, 90.3),
    "random_birthdays": Texts(43.9, 50.9, 11.9, 16.9, 5.0, 15.7, 15.7, 15.8),
}
MMLU_LONG = ("mmlu_health", "mmlu_history", "mmlu_law", "mmlu_philosophy", "mmlu_social sciences")
# Mean tokens of a whole text: assumed, since the files of these groups are not here.
PLAIN = {"fineweb_edu": 1030.0, "wikitext": 110.0} | dict.fromkeys(
    ("wmdp_corpora", "wmdp_cyber_retain", "wmdp_cyber_forget", "wmdp_bio_forget"), 5000.0
)
UNKNOWN_PLAIN = 1000.0  # assumed for any other group

PIECE = re.compile(r" ?[^\W\d_]+|\d| ?[^\w\s]+|\s|_")
PER_PIECE = 1.05  # SmolLM2's tokens per piece on the authors' MCQs and sentences: 1.03 to 1.09, Random Birthdays 1.21


def words(text: str) -> float:
    """Return the number of tokens of the miniature's word tokenizer, exactly."""
    return len(re.sub(r"[.?:,]", " ", text).split())


def pieces(text: str) -> float:
    """Estimate the tokens of a byte-pair tokenizer from words, digits, punctuation and line ends."""
    return PER_PIECE * len(PIECE.findall(text))


def counter(model: Model | ModelFile) -> Callable[[str], float]:
    """Return the function that counts (words) or estimates (pieces) a text's tokens."""
    return words if isinstance(model, Model) and model.tokenizer == "word" else pieces


def texts_of(facts: Sequence[Fact], count: Callable[[str], float]) -> Texts:
    """Return the mean tokens of the texts of these facts, of which there must be at least one."""

    def mean(values) -> float:
        values = [count(value) for value in values]
        return sum(values) / len(values) if values else 0.0

    def prompt(fact: Fact) -> str:  # as rtt.data.text.mcq_prompt
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, fact.choices, strict=False)]
        return "\n".join([fact.question, *lines, "Answer:"])

    def answer(fact: Fact) -> str:
        return fact.choices[fact.answer]

    clozes = [found for fact in facts if (found := cloze(fact))]
    return Texts(
        prompt=mean(prompt(fact) for fact in facts),
        mcq=mean(f"{prompt(fact)} {LETTERS[fact.answer]}. {answer(fact)}" for fact in facts),
        question=mean(f"{fact.question}\nAnswer:" for fact in facts),
        answered=mean(f"{fact.question}\nAnswer: {answer(fact)}" for fact in facts),
        choice=mean(f" {choice}" for fact in facts for choice in fact.choices),
        sentence=mean(text for fact in facts for text in fact.sentences),
        ria=mean(text for fact in facts for text in fact.ria_sentences),
        fif=mean(text for fact in facts for text in fact.fif_sentences),
        choices=sum(len(fact.choices) for fact in facts) / len(facts),
        chance=sum(1 / len(fact.choices) for fact in facts) / len(facts),
        begun=mean(found[0][0] for found in clozes),
        ended=mean(target for found in clozes for _, target in found),
    )


class Sizes:
    """The sizes of a study's datasets.

    They come from `results/<study>/data` if a facts.jsonl is there already. Otherwise they are generated for the
    miniature, read from the user's folders, or typical ones for the authors' datasets.
    """

    def __init__(self, results: str | Path, model: Model | ModelFile, root: str | Path = "."):
        self.results, self.root, self.count = Path(results), Path(root), counter(model)
        self.typical: set[str] = set()  # groups whose lengths come from the table
        self._known: dict[tuple, Facts] = {}

    def of(self, spec: DataSpec, splits: Sequence[str] | None = None) -> Facts:
        """Return a dataset's sizes, of all splits or of `splits`. Raises UserError when the dataset cannot be read."""
        key = (spec.run_id, tuple(splits or ()))
        if key not in self._known:
            self._known[key] = self._of(spec, splits)
        return self._known[key]

    def _of(self, spec: DataSpec, splits: Sequence[str] | None) -> Facts:
        path, raw = self.results / "data" / spec.run_id / "facts.jsonl", spec.raw
        if path.is_file():
            facts = read_facts(path)
        elif raw.people:
            facts = _people(spec)
        elif raw.files and raw.files.folder:
            folder, policy = self.root / raw.files.folder, spec.policy.model_dump()
            facts, _ = build_facts(
                folder, spec.dataset, spec.splits, policy, spec.seed, spec.facts_per_split, spec.distractors
            )
        else:
            return self._from_table(spec, splits)
        facts = [fact for fact in facts if splits is None or fact.split in splits]
        if not facts:
            raise UserError(f"{spec.dataset}: no facts in splits {', '.join(splits)}; correct them in the study file")
        found = list(dict.fromkeys(fact.split for fact in facts))
        return Facts({s: sum(fact.split == s for fact in facts) for s in found}, texts_of(facts, self.count), True)

    def _from_table(self, spec: DataSpec, splits: Sequence[str] | None) -> Facts:
        raw = spec.raw
        group = raw.files.group if raw.files else "random_birthdays"
        if raw.birthdays:
            names, per_split = [f"split_{i}" for i in range(raw.birthdays.splits)], raw.birthdays.facts_per_split
        else:
            names, per_split = _listed(group)
        names = [name for name in spec.splits or names if splits is None or name in splits]
        per_split = spec.facts_per_split or per_split
        long = [group == "mmlu" and name in MMLU_LONG for name in names]
        tables = [TYPICAL["mmlu_long"] if one else TYPICAL.get(group, TYPICAL["mmlu"]) for one in long]
        mean = Texts(*(sum(values) / len(tables) for values in zip(*map(astuple, tables), strict=True)))
        self.typical.add(group)
        return Facts(dict.fromkeys(names, per_split), mean, False)


def _listed(group: str) -> tuple[list[str], int]:
    """Return a fetched dataset's splits, in order, and how many facts each has.

    Where the table gives a number of rows, that is it; else it is that of the authors' splits.
    """
    rows = sources.group(group)
    names = sorted((split for kind, split in (role(row.file) for row in rows) if kind == "mcq"), key=natural)
    return names, rows[0].rows or AUTHORS_PER_SPLIT


@cache
def _written(options: str, dataset: str, policy: str, seed: int) -> tuple[Fact, ...]:
    """Return the facts of a generated dataset, as the steps `generate` and `facts` make them."""
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in generate(dataset, json.loads(options), seed).items():
            Path(folder, name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return tuple(build_facts(folder, dataset, None, json.loads(policy), seed)[0])


def _people(spec: DataSpec) -> list[Fact]:
    options, policy = (canonical_json(part.model_dump()) for part in (spec.raw.people, spec.policy))
    return list(_written(options, spec.dataset, policy, spec.raw.seed))


# Training texts


def teaching_tokens(parts: Sequence[Facts], settings: Teaching) -> tuple:
    """Return (steps, tokens) of a teaching phase on all parts' facts together."""
    total = sum(map(len, parts))
    means = (sum(len(p) * v for p, v in zip(parts, values, strict=True)) / total for values in _columns(parts))
    return Texts(*means).passes(
        total, settings.loss, settings.epochs, settings.batch_size, settings.samples, settings.sentences
    )


def _columns(parts: Sequence[Facts]) -> list[tuple[float, ...]]:
    return list(zip(*(astuple(part.texts) for part in parts), strict=True))


def pretraining_tokens(parts: Sequence[Facts], settings: Pretraining) -> tuple:
    """Return (steps, tokens) of `rtt.training.order.pretraining_documents` on all parts' facts."""
    total = sum(map(len, parts))
    plain = sum(len(p) * (SENTENCES * p.texts.sentence + p.texts.answered) / (SENTENCES + 1) for p in parts) / total
    mcq = sum(len(part) * part.texts.mcq for part in parts) / total
    steps, mcqs = settings.steps, settings.mcqs_per_batch
    return steps, steps * ((settings.batch_size - mcqs) * plain + mcqs * mcq)


def unlearning_tokens(spec: UnlearnSpec, facts: Facts, retain: Facts | TextsSpec) -> tuple:
    """Return (steps, tokens of the forget texts, tokens of the retain texts) of a whole trajectory."""
    settings, share = spec.settings, spec.settings.mcq_share
    steps = points(spec, len(facts))[-1]
    if spec.texts:
        forget = sum(part.count * plain(part) for part in spec.texts) / sum(part.count for part in spec.texts)
    else:
        told = facts.texts.told(plugins.methods()[spec.method].texts)
        forget = _mixed(share, facts.texts.trained(settings.mcq_loss), told)
    if isinstance(retain, TextsSpec):
        kept = plain(retain)
    else:
        kept = _mixed(share, retain.texts.trained(settings.mcq_loss), retain.texts.sentence)
    return steps, steps * settings.batch_size * forget, steps * settings.batch_size * kept


def _mixed(share: float, mcq: float, sentence: float) -> float:
    """Return the mean tokens of a text; facts without sentences are shown as MCQs alone."""
    return share * mcq + (1 - share) * sentence if sentence else mcq


def plain(texts: TextsSpec) -> float:
    """Return the mean tokens of plain texts, as a whole or cut after `max_characters`."""
    whole, limit = PLAIN.get(texts.group, UNKNOWN_PLAIN), texts.max_characters
    return whole if limit is None else min(whole, limit / CHARACTERS)


def points(spec: UnlearnSpec, facts: int) -> list[int]:
    """Return the steps at which a trajectory is scored; an external model's only point is step 0.

    This repeats `rtt.training.order.point_steps`, whose module imports torch.
    """
    settings = spec.settings
    if isinstance(settings, External):
        return [0]
    if settings.points:
        return list(settings.points)
    n = sum(part.count for part in spec.texts) or facts
    shown = min(n, settings.samples or n) * (1 if spec.texts else SENTENCES)
    per_epoch = -(-shown // settings.batch_size)
    return [per_epoch * epoch for epoch in range(1, settings.epochs + 1)]


# The model


def parameters(model: Model | ModelFile) -> int:
    """Return the number of parameters: the model file's, its folder's, or the miniature's by a closed form.

    Raises UserError when the model file does not say, and no folder is there.
    """
    if isinstance(model, ModelFile):
        if model.parameters is None and model.path and Path(model.path).is_dir():
            return count_weights(model.path)
        if model.parameters is None:
            raise UserError(
                f"model {model.name}: `parameters` is missing beside `name`; add the count, as 8030261248 (its model "
                "card says it, and so does the manifest of an import)"
            )
        return model.parameters
    return miniature_parameters(model)


WHOLE = Part()


def passes(settings: Training) -> int:
    """Return how often a step reads or writes a value per trained parameter, in the optimizer and for the norm."""
    if settings.precision != "bf16_kahan":
        return PASSES[settings.optimizer]
    gradient = RELEASED_GRADIENT if settings.gradient_release else WHOLE_GRADIENT
    return KAHAN_PASSES[settings.optimizer] + gradient


def traffic(settings: Training, n: int, steps: int, part: Part = WHOLE, adapters: bool = False) -> float:
    """Return the bytes that the optimizer's steps read and write; adapters are in fp32."""
    size = BYTES["fp32" if adapters else settings.precision]
    return steps * n * part.trained * size * passes(settings)


def eval_bytes(questions: float, probes: Sequence[str]) -> float:
    """Return the bytes of an evaluation JSON with so many scored questions."""
    each = QUESTION_BYTES + sum(PROBE_BYTES + MORE_BYTES.get(probe, 0) for probe in probes)
    return FILE_BYTES + questions * each
