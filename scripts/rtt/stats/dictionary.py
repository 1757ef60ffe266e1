"""The data dictionary: what each table has a row for, and each column's type, range, meaning, and empty cells."""

import textwrap
from typing import NamedTuple

from rtt.stats.criteria import STATUSES
from rtt.stats.probes import STAGES as MODELS
from rtt.stats.strongest_table import HALVES
from rtt.stats.tables import COLUMNS
from rtt.stats.verdicts import VERDICTS
from rtt.study.names import PROBES, STAGES, STRONGEST


class Kind(NamedTuple):
    """What a cell holds: one of `words` where there are any, else a `type`, between `low` and `high`."""

    type: str
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the kind in words: `number from 0 to 1`."""
        if self.words:
            return ", ".join(f"`{word}`" for word in self.words)
        ends = {"from": self.low, "to": self.high} if self.high is not None else {"of at least": self.low}
        return " ".join([self.type, *(f"{word} {end:g}" for word, end in ends.items() if end is not None)])


class Column(NamedTuple):
    """One column. empty: what an empty cell means; "" where no cell is empty."""

    kind: Kind
    meaning: str
    empty: str = ""


class Table(NamedTuple):
    """One table: `about` says what it has a row for; `own` describes the columns that mean something else elsewhere."""

    about: str
    own: dict[str, Column]


TEXT, TRUTH, NUMBER = Kind("text"), Kind("true or false"), Kind("number")
FRACTION, DIFFERENCE = Kind("number", 0, 1), Kind("number", -1, 1)
WHOLE, ONE_UP, LIST = Kind("whole number", 0), Kind("whole number", 1), Kind("numbers with semicolons between them")
WHOLES = Kind("whole numbers with semicolons between them")
VARIANCE, PERPLEXITY, BITS = Kind("number", 0), Kind("number", 1), Kind("number", 0)
NO_POINT = "No point of the unlearning run lies within the budget."
NO_RATE = "There is no rate: no point, or an original that does not lie above the floor or did not learn T."
NO_T = "There is nothing to say: no point or no control, or the attack uses no T or is itself a control."
NO_ORACLE_T = "There is no oracle, or the attack uses no T."
NO_RETAIN = "There are no retain questions."
NO_TEXT = "The evaluation has no sentences."
ONE_SEED = "There is one seed, or none."
LETTERS, PERMUTED = "The probe is not `letter`.", "The probe is not `letter_permuted`."


def _one_of(*words: str) -> Kind:
    return Kind("text", words=words)


PROBE = Column(_one_of(*PROBES, STRONGEST), "How the model was asked; `strongest` is chosen on other questions.")
LOOK_CHOICE = Column(
    _one_of("nested", "paper"),
    "How the reported setting of the attack was chosen: on other questions (`nested`), or on the same V (`paper`).",
)

SHARED = {
    "dataset": Column(TEXT, "The dataset of the facts that are asked."),
    "arm": Column(TEXT, "How the model learned the facts, such as `pretrained` or `taught`."),
    "model": Column(TEXT, "The model."),
    "method": Column(TEXT, "The unlearning method, or the name of a model that was unlearned elsewhere."),
    "attack": Column(TEXT, "The attack, such as `RTT`; `strongest` is chosen among several on other questions."),
    "variant": Column(TEXT, "The variant of the study; `default` is the study itself."),
    "seed": Column(Kind("whole number"), "The seed, which decides facts, training and order."),
    "retain_budget": Column(FRACTION, "The share of its retain accuracy that unlearning may cost."),
    "look_choice": LOOK_CHOICE,
    "probe": PROBE,
    "unlearning_repeat": Column(WHOLE, "The repeat of unlearning, counted from 0."),
    "attack_repeat": Column(WHOLE, "The repeat of the attack, counted from 0."),
    "v_split": Column(TEXT, "The split that served as V; `all` is all of them together."),
    "n_questions": Column(ONE_UP, "The number of V questions."),
    "n_groups": Column(ONE_UP, "The number of persons or facts that these questions are about."),
    "n_runs": Column(WHOLE, "The number of runs (unlearning times attack) with a point within the budget."),
    "acc_before": Column(FRACTION, "Accuracy on V of the original, before unlearning."),
    "acc_unlearned": Column(FRACTION, "Accuracy on V of the unlearned model at its chosen point.", NO_POINT),
    "acc_attacked": Column(FRACTION, "Accuracy on V of the unlearned model after the attack.", NO_POINT),
    "acc_original_attacked": Column(FRACTION, "Accuracy on V of the original after the attack."),
    "acc_control_attacked": Column(
        FRACTION, "Accuracy after the attack of the control, on facts that it never saw.", "There is no control."
    ),
    "acc_oracle_attacked": Column(
        FRACTION,
        "Accuracy on V after the attack of the oracle, which was trained without these facts.",
        "There is no oracle.",
    ),
    "t_acc_attacked": Column(
        FRACTION,
        "Accuracy on T that the attack reached on the unlearned model: at its best look, by the better headline probe, "
        "in the run that learned least.",
        "There is no point, or the attack uses no T.",
    ),
    "t_acc_original_attacked": Column(FRACTION, "The same of the original.", "The attack uses no T."),
    "t_acc_control_attacked": Column(
        FRACTION, "The same of the control.", "There is no control, or the attack uses no T."
    ),
    "t_acc_oracle_attacked": Column(FRACTION, "The same of the oracle.", NO_ORACLE_T),
    "attack_learned": Column(TRUTH, "Whether `t_acc_attacked` reaches `criteria.learned`.", NO_T),
    "control_learned": Column(TRUTH, "Whether `t_acc_control_attacked` reaches `criteria.learned`.", NO_T),
    "retain_before": Column(FRACTION, "Accuracy of the original on retain questions.", NO_RETAIN),
    "retain_unlearned": Column(
        FRACTION, "Accuracy of the unlearned model on retain questions.", f"{NO_POINT} Or: {NO_RETAIN.lower()}"
    ),
    "perplexity_before": Column(
        PERPLEXITY, "Perplexity of held-out retain sentences to the original, whichever the probe.", NO_TEXT
    ),
    "perplexity_unlearned": Column(
        PERPLEXITY, "The same to the unlearned model at its chosen point.", f"{NO_POINT} Or: {NO_TEXT.lower()}"
    ),
    "floor": Column(FRACTION, "What a guesser without any knowledge scores on these questions by this probe."),
    "original_floor": Column(FRACTION, "The floor of the original, which differs from `floor` for `strongest` alone."),
    "recovery": Column(VARIANCE, "`acc_attacked` over `acc_original_attacked`: the paper's recovery rate.", NO_RATE),
    "recovery_corrected": Column(NUMBER, "The same with the floor subtracted from both.", NO_RATE),
    "recovery_difference": Column(DIFFERENCE, "`acc_attacked` minus `acc_unlearned`.", NO_POINT),
    "counts": Column(
        TRUTH, "Whether the original knew the facts and every run unlearned them by every probe; alike by all probes."
    ),
    "status": Column(_one_of(*STATUSES), "The first of these that holds, in this order."),
    "cannot_tell": Column(
        TEXT,
        "Those of the three recoveries whose interval reaches more than .25 from the estimate, with semicolons between "
        "them.",
        "None of them is that wide.",
    ),
    "accuracy": Column(FRACTION, "The share of right answers; after an attack a mean over its repeats."),
    "low": Column(FRACTION, "The lower end of the 95 % interval of `accuracy`."),
    "high": Column(FRACTION, "The upper end of the 95 % interval of `accuracy`."),
    "n_cells": Column(ONE_UP, "The number of seeds that have the cell."),
    "n_counting": Column(WHOLE, "The number of seeds in which it counts as unlearned."),
    "n_seeds": Column(WHOLE, "The number of seeds that the mean is over."),
    "seeds": Column(WHOLES, "The seeds that the mean is over.", "There is none."),
    "per_seed": Column(
        LIST, "Each seed's value, in the order of the seeds; one that a seed lacks is empty.", "There is none."
    ),
    "mean": Column(NUMBER, "The mean over seeds; of a rate, the ratio of two means.", "No seed has a value."),
}
NO_ENDS = "There is one seed, or none, or the interval has no ends."
OVER_SEEDS = {
    "low": Column(NUMBER, "The lower end of the 95 % interval over seeds.", NO_ENDS),
    "high": Column(NUMBER, "The upper end of the 95 % interval over seeds.", NO_ENDS),
}
NOTHING_REPEATS = "Nothing repeats there, or there is one seed."

TABLES = {
    "recovery": Table(
        "A row per variant, dataset, arm, model, method, attack, seed, retain budget, look choice and probe: means "
        "over the runs of this cell. The first row's probe is the study's headline probe; `strongest` has rows for the "
        "look choice `nested` alone.",
        {},
    ),
    "runs": Table(
        "A row per run of which recovery.csv has the means: one unlearning and one repeat of the attack. By the "
        "headline probes and `strongest`, each V split has a row, too.",
        {
            "acc_original_attacked": Column(FRACTION, "The same of the original, after the same repeat of the attack."),
            "t_acc_attacked": Column(
                FRACTION, "Accuracy on T that the attack reached in this run.", "The attack uses no T."
            ),
        },
    ),
    "probes": Table(
        "A row per model before any attack, and probe: the originals, the chosen points, oracles and controls.",
        {
            "stage": Column(_one_of(*MODELS), "Which model it is; `unlearned` is a method's chosen point."),
            "method": Column(TEXT, "The unlearning method; `none` for a model that was not unlearned."),
            "retain_budget": Column(
                FRACTION, "The budget for which the point was chosen.", "The model was not unlearned."
            ),
            "n_questions": Column(ONE_UP, "The number of questions about the facts to forget."),
            "margin": Column(FRACTION, "How far above the floor `upper_95` of an unlearned model may lie."),
            "upper_95": Column(FRACTION, "The one-sided upper 95 % limit of `accuracy`."),
            "upper_99": Column(FRACTION, "The one-sided upper 99 % limit of `accuracy`."),
            "at_floor": Column(TRUTH, "Whether `upper_95` is at most the floor plus the margin."),
            "below_floor": Column(TRUTH, "Whether `upper_99` lies below the floor, which is not forgetting."),
            "said": Column(TEXT, "How often each letter is said, such as `A:42;B:42;C:42;D:42`.", LETTERS),
            "entropy": Column(BITS, "The entropy of that in bits: 0 for a model that always says one letter.", LETTERS),
            "mass": Column(FRACTION, "The probability of all letters together, on average.", LETTERS),
            "rotations": Column(FRACTION, "Mean accuracy over all rotations of the choices.", PERMUTED),
            "all_rotations": Column(FRACTION, "The share of questions that are right in all rotations.", PERMUTED),
        },
    ),
    "accuracy": Table(
        "A row per accuracy. A point of an unlearning run has one, and another with the retain budget for which it was "
        "chosen. An attacked model has one per look, with the look choice `none`, and one for the looks that `paper` "
        "and `nested` choose; single V splits of a look have rows by the headline probes, the tables' first, and "
        "`letter`. Rows of a control are repeated for each arm that it serves, and have its own dataset.",
        {
            "method": Column(TEXT, "The unlearning method; `none` for a model that was not unlearned."),
            "attack": Column(TEXT, "The attack; `none` before any."),
            "retain_budget": Column(
                FRACTION,
                "The budget for which the point was chosen.",
                "The model was not unlearned, or the row is about a point as such.",
            ),
            "stage": Column(_one_of(*STAGES), "Which model it is, and whether it was attacked."),
            "set": Column(_one_of("T", "V", "retain"), "Which questions were asked."),
            "look_choice": Column(_one_of("none", *LOOK_CHOICE.kind.words), f"{LOOK_CHOICE.meaning} `none`: one look."),
            "probe": Column(_one_of(*PROBES), "How the model was asked."),
            "run": Column(TEXT, "The unlearning run whose point it is.", "The stage is not `unlearned`."),
            "step": Column(WHOLE, "The step of unlearning.", "The model was not unlearned."),
            "setting": Column(
                TEXT, "The setting of the look, such as `epoch=8 lr=0.001`.", "There is no attack, or a look choice."
            ),
            "n_questions": Column(ONE_UP, "The number of answers; T may ask a question more than once."),
            "n_correct": Column(VARIANCE, "The number of right answers; after an attack a mean over its repeats."),
        },
    ),
    "seeds": Table(
        "A row per cell over seeds, set and quantity, of the variant `default`. A cell is a dataset, arm, model, "
        "method, attack, retain budget, look choice and probe.",
        {
            "set": Column(_one_of("counting", "known"), "The seeds: those that count, or all known ones with a point."),
            "quantity": Column(
                _one_of(
                    *("recovery", "recovery_corrected", "recovery_difference"),
                    *("acc_unlearned", "acc_attacked", "acc_original_attacked"),
                ),
                "Which column of recovery.csv it is.",
            ),
            **OVER_SEEDS,
            "df": Column(ONE_UP, "The degrees of freedom: one less than there are seeds.", NO_ENDS),
            "sd_seed": Column(VARIANCE, "The standard deviation over seeds.", ONE_SEED),
            "var_base": Column(VARIANCE, "The variance between seeds beyond what runs explain.", NOTHING_REPEATS),
            "var_unlearning": Column(VARIANCE, "The variance between repeats of unlearning.", NOTHING_REPEATS),
            "var_rtt": Column(VARIANCE, "The variance between repeats of the attack.", NOTHING_REPEATS),
            "var_original": Column(
                VARIANCE, "The part of `var_rtt` of a rate that the attack on the original has.", NOTHING_REPEATS
            ),
            "var_v_split": Column(VARIANCE, "What a V split adds in all runs of its seed.", NOTHING_REPEATS),
            "var_person": Column(
                VARIANCE, "The variance between the groups of a seed's questions.", "No group has several questions."
            ),
            "claim": Column(
                _one_of("yes", "no", "these weights"),
                "Whether it supports a statement over seeds; one seed tells about its own weights alone.",
            ),
        },
    ),
    "contrasts": Table(
        "A row per difference, set and quantity, of the variant `default`: `a` minus `b`, two arms with the same "
        "method, or two methods (`GD - RMU`) in the same arm.",
        {
            "arm_a": Column(TEXT, "The arm of the first side."),
            "arm_b": Column(TEXT, "The arm of the second side."),
            "dataset_a": Column(TEXT, "The dataset of the first side."),
            "dataset_b": Column(TEXT, "The dataset of the second side."),
            "method": Column(TEXT, "The method of both sides, or the two methods."),
            "set": Column(_one_of("counting", "known"), "The seeds: those that count, or all known ones with a point."),
            "quantity": Column(_one_of("acc_attacked", "recovery_corrected"), "Which column of recovery.csv it is."),
            "n_cells": Column(WHOLE, "The number of seeds that have both sides."),
            "n_counting": Column(WHOLE, "The number of seeds in which both sides count as unlearned."),
            "mean": Column(NUMBER, "The mean difference.", "No seed has both values."),
            "low": Column(NUMBER, "The lower end of its 95 % interval.", "There is no interval."),
            "high": Column(NUMBER, "The upper end of its 95 % interval.", "There is no interval."),
            "over": Column(
                _one_of("seeds", "questions"),
                "What the interval is over: with one seed, the questions that two methods share.",
                "There is no interval.",
            ),
            "comparable": Column(_one_of("yes", "no"), "Whether both sides started alike and were unlearned alike."),
            "why": Column(TEXT, "Why they are not comparable.", "They are."),
        },
    ),
    "variants": Table(
        "A row per variant, cell and quantity: the variant minus the default, paired by seed. A study without variants "
        "has the header alone.",
        {
            "look_choice": Column(
                _one_of(*LOOK_CHOICE.kind.words, "paper - nested"),
                f"{LOOK_CHOICE.meaning} A variant that reports `paper` is compared with the default's `nested`.",
            ),
            "quantity": Column(
                _one_of("acc_unlearned", "acc_attacked", "recovery", "recovery_corrected"),
                "Which column of recovery.csv it is.",
            ),
            "mean": Column(NUMBER, "The mean difference.", "No seed has both values."),
            **OVER_SEEDS,
        },
    ),
    "headline": Table(
        "A row per dataset, model, arm and method, of what a study reports first: its main attack, retain budget, look "
        "choice `nested` and headline probe, of the variant `default`. With one seed it is that seed's row of "
        "recovery.csv, with intervals over questions. With several, means over the seeds of `set`, with intervals over "
        "seeds.",
        {
            "set": Column(
                _one_of("counting", "known", "all"),
                "The seeds: those that count where at least 8 of 10 do, else all known ones with a point, else all.",
            ),
            "n_seeds": Column(ONE_UP, "The number of seeds that the means are over."),
            "seeds": Column(WHOLES, "The seeds that the means are over."),
            "t_acc_attacked": Column(
                FRACTION,
                "Accuracy on T that the attack reached on the unlearned model, in the seed that learned least.",
                "There is no point, or the attack uses no T.",
            ),
            "recovery_corrected_likelihood": Column(
                NUMBER, "`recovery_corrected` by the probe `likelihood`.", f"{NO_RATE} Or the probe was not asked."
            ),
            "above_control": Column(
                DIFFERENCE,
                "`acc_attacked` minus `acc_control_attacked`, over the seeds that count and have a control "
                "that learned T.",
                "There is no such seed.",
            ),
            "attack_learned": Column(TRUTH, "Whether the attack learned T in every seed of `set`.", NO_T),
            "control_learned": Column(TRUTH, "Whether it did on the control.", NO_T),
            "counts": Column(TRUTH, "Whether it counts as unlearned in at least 8 of 10 seeds."),
            "holds": Column(
                TRUTH,
                "Whether what comes back exceeds the control: with one seed, by their two intervals; with several, by "
                "the t interval of `above_control`.",
                "It cannot be judged.",
            ),
            "status": Column(TEXT, "The statuses of its seeds, the most frequent first, with semicolons between them."),
            "verdict": Column(_one_of(*VERDICTS), "What the results say of this method in one word."),
            "why": Column(TEXT, "The reason for the verdict.", "The verdict is `hidden` or `none_shown`."),
        },
    ),
    "strongest": Table(
        "What the strongest attack is: a row per attacked model, probe, run and half of its V questions. The attack "
        "and its setting were chosen on the other half, by what lies above the floor as a share of what a guesser "
        "misses. "
        "Arms with fewer than two attacks that can be the strongest have no row.",
        {
            "method": Column(TEXT, "The unlearning method; `none` for a model that was not unlearned."),
            "attack_repeat": Column(WHOLE, "The run of the strongest attack, counted from 0, as in runs.csv."),
            "retain_budget": Column(
                FRACTION, "The budget for which the point was chosen.", "The model was not unlearned."
            ),
            "stage": Column(_one_of(*MODELS), "Which model was attacked."),
            "half": Column(_one_of(*HALVES), "The half of the V questions that is reported; the other half decided."),
            "attack": Column(TEXT, "The attack that was chosen."),
            "setting": Column(TEXT, "Its setting that was chosen, such as `epoch=8 lr=0.001`."),
            "chosen_probe": Column(
                _one_of(*PROBES), "The probe that was chosen with it; another than `probe` for `strongest` alone."
            ),
            "own_repeat": Column(WHOLE, "The repeat of that attack; one with fewer repeats stands with its last one."),
            "n_questions": Column(ONE_UP, "The number of questions of this half."),
            "deciding": Column(
                NUMBER,
                "What lies above the floor on the half that decided: `(a - f) / (1 - f)` of accuracy a and floor f.",
            ),
            "reporting": Column(NUMBER, "The same on the half that is reported."),
        },
    ),
    "cost": Table(
        "What an attack that trains on T brings back after how much training: a row per attacked model, probe and "
        "look, and one before the attack. Accuracies are means over the repeats of unlearning and of the attack. "
        "Attacks whose looks are no epochs of a training on T have no row.",
        {
            "method": Column(TEXT, "The unlearning method; `none` for a model that was not unlearned."),
            "retain_budget": Column(
                FRACTION, "The budget for which the point was chosen.", "The model was not unlearned."
            ),
            "stage": Column(_one_of(*MODELS), "Which model was attacked."),
            "probe": Column(_one_of(*PROBES), "How the model was asked."),
            "setting": Column(TEXT, "The setting of the look, such as `epoch=8 lr=0.001`.", "It was not attacked yet."),
            "epoch": Column(WHOLE, "The epoch of the look; 0 before the attack."),
            "step": Column(
                VARIANCE,
                "The optimizer's steps of the attack so far, a mean over the V splits.",
                "The run has no spec, or no audit says which facts have sentences.",
            ),
            "tokens": Column(VARIANCE, "The tokens that it trained on so far, likewise.", "The run has no manifest."),
            "flops": Column(
                VARIANCE,
                "The product of 6, the model's parameters and these tokens.",
                "The tokens or the parameters are not known.",
            ),
            "n_t": Column(ONE_UP, "The number of answers on T, which asks a question once for each other V split."),
            "accuracy_t": Column(FRACTION, "The share of right answers on T."),
        },
    ),
    "questions": Table(
        "A row per V question and model, so that one fact can be followed through the study. It holds what figures "
        "show first: the variant `default`, the main seed (0 where it was run, else the lowest), the headline probe, "
        "the main attack and retain budget, the look choice `nested`, and the first repeats. An attacked model stands "
        "at the look that was chosen on the other half of the questions. A control has rows only where it was asked "
        "the same questions, and what a compact bundle has no probabilities of has no row.",
        {
            "attack": Column(TEXT, "The attack that attacked models went through.", "Nothing was attacked."),
            "retain_budget": Column(FRACTION, "The budget for which points were chosen.", "Nothing was unlearned."),
            "stage": Column(
                _one_of(*dict.fromkeys((*STAGES, *MODELS))), "Which model it is, and whether it was attacked."
            ),
            "method": Column(TEXT, "The unlearning method.", "The model was not unlearned."),
            "probe": Column(_one_of(*PROBES), "How the model was asked."),
            "id": Column(TEXT, "The question: its dataset, split and line."),
            "group": Column(TEXT, "The person or fact that the question is about."),
            "v_split": Column(TEXT, "The question's split, which served as V."),
            "answer": Column(WHOLE, "The index of the right choice, counted from 0."),
            "right": Column(FRACTION, "Whether the answer is right: 1, 0, or one over the number of choices that tie."),
            "p_1": Column(
                FRACTION,
                "The probability of the first choice, in the order of `facts.jsonl` (of its fresh choices for "
                "`likelihood_fresh`): the scores of the probe that was asked, normalised over the choices, in half "
                "precision and with 4 decimals. A probe that is computed from another one's scores has those of the "
                "other one.",
            ),
            "p_2": Column(
                FRACTION,
                "The same of the second choice. `p_3`, `p_4` and so on follow, as many as a question has choices; they "
                "are empty beyond a question's own.",
            ),
        },
    ),
}


def columns(table: str) -> dict[str, Column]:
    """Return {column: its description} of a table, in its order. Raises KeyError for a column without one."""
    return {name: _described(TABLES[table].own, name) for name in COLUMNS[table]}


def _described(own: dict[str, Column], name: str) -> Column:
    if name in own or name in SHARED:
        return own.get(name) or SHARED[name]
    value, _, end = name.rpartition("_")
    kind, _, empty = _described(own, value)
    which = {"low": "lower", "high": "upper"}[end]
    if value in ("above_control", "acc_before"):  # the value may stand alone
        empty = {"above_control": f"{ONE_SEED}", "acc_before": "It was asked other questions before the attack."}[value]
    return Column(kind, f"The {which} end of the 95 % interval of `{value}`.", empty)


CELLS = (
    "Accuracies and recoveries are fractions, floats have 6 decimals, and an unknown value is an empty cell. Where a "
    "name may begin with =, +, - or @, an apostrophe stands before it, so that no spreadsheet takes it for a formula."
)


def page(title: str, *before: str) -> str:
    """Return the dictionary as a page in Markdown, a section per table; `before`: paragraphs that stand first."""
    parts = [f"# {title}", *map(_wrapped, (*before, CELLS))]
    for name, table in TABLES.items():
        rows = ["| column | holds | meaning | empty cell |", "|---|---|---|---|"]
        rows += [f"| `{key}` | {one.kind} | {one.meaning} | {one.empty} |" for key, one in columns(name).items()]
        parts += [f"## `{name}.csv`", _wrapped(table.about), "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
