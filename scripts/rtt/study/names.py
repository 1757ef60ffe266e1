"""Define the names that studies, results and figures share, each once."""

from collections.abc import Collection, Mapping
from typing import Any

DEFAULT_STUDY = "config/config.yaml"
DEFAULT = "default"  # the variant that is the study itself
ARMS = ("pretrained", "taught", "taught_shuffled", "taught_same_data")
# The paper's losses (app. A; sec. 6.1 for NUMBER). SENTENCE_LOSSES are of sentences, the others of a question; NUMBER
# is a loss of both.
LOSSES = ("LETTER", "LETTER_ANSWER", "QUESTION_LETTER_ANSWER", "QUESTION_ANSWER", "CORPUS", "NUMBER")
SENTENCE_LOSSES = ("CORPUS", "NUMBER")
# What a model is asked (`scores.probes`), and what tables hold. A probe of tables comes from the scores of one that is
# asked, by which DERIVED names it where the names differ.
ASKED = ("letter", "letter_permuted", "likelihood", "likelihood_fresh", "cloze", "few_shot")
PROBES = (
    "letter_permuted", "letter", "letter_calibrated", "likelihood", "likelihood_token", "likelihood_byte",
    "likelihood_fresh", "cloze", "few_shot", "sampled",
)  # fmt: skip
OF_ATTACKS = ("sampled",)  # of PROBES: those by which an attack alone asks, so that no study selects them
IN_EVALUATIONS = (*ASKED, *OF_ATTACKS)
DERIVED = {"letter_calibrated": "letter", "likelihood_token": "likelihood", "likelihood_byte": "likelihood"}
BY_DEFAULT = ("letter", "letter_permuted", "likelihood", "likelihood_fresh", "cloze")  # of ASKED
STRONGEST = "strongest"  # in tables: the probe that lies highest above its floor, chosen on other questions
STRONGEST_ATTACK = "strongest"  # in tables: of each half of V, the attack that brings back most on the other half
STAGES = (
    "original",
    "unlearned",
    "original_attacked",
    "unlearned_attacked",
    "control_attacked",
    "oracle_attacked",
)  # of accuracy.csv
TABLES = (
    "recovery", "runs", "probes", "accuracy", "seeds", "contrasts", "variants", "headline", "strongest", "cost",
    "questions",
)  # fmt: skip
DRAWN_FROM = ("recovery", "accuracy", "probes", "seeds", "strongest", "cost")  # of TABLES
FIGURES = (
    "steps", "probes", "accuracy", "recovery", "cost", "seeds", "attack", "tradeoff", "curves", "attacks",
    "sensitivity",
)  # fmt: skip


NONE = "none"  # in tables, no method, no attack, no look choice
POOLED = "all"  # in tables, all V splits together
MOST_VARIANTS = 100  # of a study
MOST_RUN_ID = 180  # letters: a bundle takes 200, a file system 255 bytes with what is added while a file is written


def split_problem(name: str) -> str | None:
    """Return why a split cannot have this name; None if it can."""
    if name == POOLED:
        return "tables call all splits together `all`; choose another name"
    if name != name.strip() or not name:
        return "expected a name without white space at its ends"
    if not name.isprintable() or "," in name or "/" in name:
        return "expected a name without commas, slashes and characters that cannot be printed"
    if name[0] in "-=+@":
        return "a name that begins with - = + or @ would be taken for an option or a formula; choose another"
    if len(name.encode()) > 100:
        return f"{len(name.encode())} bytes; expected at most 100"
    return None


def asked_for(probe: str) -> str:
    """Return the probe, one of ASKED, from whose scores a probe of the tables comes."""
    return DERIVED.get(probe, probe)


def probes_of(asked: Collection[str]) -> list[str]:
    """Return the probes of the tables that come from those that were asked, in the tables' order."""
    return [probe for probe in PROBES if asked_for(probe) in asked]


def target_name(method: str, budget: float, repeat: int = 0) -> str:
    """Return the part of a file name for an unlearned target: method, retain budget in percent, repeat from 1 on."""
    return f"{method}-{budget_name(budget)}" + (f"-r{repeat}" if repeat else "")


def budget_name(budget: float) -> str:
    """Return the part of a file name for a retain budget: b and its percent."""
    return f"b{round(budget * 100)}"


def setting_text(setting: Mapping[str, Any]) -> str:
    """Write an attack's setting as the tables do: `epoch=8 lr=0.001`, keys sorted, values as Python's str."""
    return " ".join(f"{key}={setting[key]}" for key in sorted(setting))


def read_setting(text: str) -> dict[str, int | float | str]:
    """Read what `setting_text` wrote; what looks like a number becomes one."""
    return {key: _number(value) for key, _, value in (part.partition("=") for part in text.split())}


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
