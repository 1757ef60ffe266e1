"""A verdict's answer as plain data, `verdict.json`: what came out, what it rests on, and what would make it surer.

Its keys are documented in docs/verdict.md, and `KEYS` holds them for a test. The decision itself is made by
`rtt.stats.verdict`, on the answers to single questions.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from rtt import __version__
from rtt.attacks.rtt import RTT
from rtt.errors import UserError
from rtt.figures.phrases import listed
from rtt.figures.style import PROBES
from rtt.judging import findings, ruling, settings
from rtt.judging.request import NOT_NAMED, NOT_TRAINED, Prepared
from rtt.study import plugins
from rtt.study.names import STRONGEST_ATTACK

VERSION = 1
HALF_WIDTH = 0.05
KEYS = (
    *("version", "answer", "sentence", "share", "reasons", "cautions", "original_knew", "unlearned_by_every_probe"),
    *("strongest", "RTT", "attacks", "control", "not_tried", "surer", "retained", "perplexity", "questions", "models"),
    *("headline", "study", "program"),
)


def answer(prepared: Prepared) -> dict[str, Any]:
    """Return the answer of a finished study. Raises UserError where a table or an evaluation is missing or damaged."""
    kept = prepared.kept
    recovery, probes = findings.tables(prepared.results)
    headline = kept["headline"]
    found = findings.attacks(recovery, headline[0])
    original, unlearned = (findings.before(probes, stage) for stage in ("original", "unlearned"))
    control = findings.before(probes, "control")
    by_name = {one["attack"]: one for one in found}
    alone = [one for one in found if one["attack"] != STRONGEST_ATTACK]
    strongest = by_name.get(STRONGEST_ATTACK) or (alone[0] if alone else None)
    if strongest is None:
        raise UserError(f"{prepared.results}: no attack was asked by {headline[0]}; start the study again")
    arm, runs = ruling.scores(prepared.results)
    ruled, chosen = ruling.ruled(arm, runs, kept["names"]["unlearned"], headline[0], strongest)
    share = findings.rounded(ruled.share)
    knows = {"holds": ruling.knows(arm, runs), "probes": [one for one in original if one["probe"] in headline]}
    gone = {
        "holds": all(one["at_floor"] for one in unlearned),
        "below_floor": any(one["below_floor"] for one in unlearned),
        "probes": unlearned,
    }
    return {
        "version": VERSION,
        "answer": ruled.answer,
        "sentence": f"{ruled.text[0].upper()}{ruled.text[1:]}.",
        "share": share,
        "reasons": list(ruled.reasons),
        "cautions": cautions(knows, gone, by_name.get(RTT.name)),
        "original_knew": knows,
        "unlearned_by_every_probe": gone,
        "strongest": strongest | {"chosen": chosen},
        "RTT": by_name.get(RTT.name),
        "attacks": alone,
        "control": {**kept["questions"]["control"], "probes": control} if kept["questions"]["control"] else None,
        "not_tried": [*kept["not_tried"], *unjudged(kept["attacks"], headline[0])],
        "surer": surer(kept, strongest, kept["attacks"]),
        "retained": findings.retained(recovery, headline) if kept["questions"]["retain"] else None,
        "perplexity": findings.perplexities(recovery),
        "questions": kept["questions"]["data"],
        "models": {
            "unlearned": kept["asked"]["unlearned"], "original": kept["asked"]["original"],
            "parameters": kept["parameters"],
        },
        "headline": list(headline),
        "study": {"name": kept["study"], "file": "study.yaml", "report": "report.html"},
        "program": f"unlearning-rtt {__version__}",
    }  # fmt: skip


def cautions(knows: Mapping[str, Any], gone: Mapping[str, Any], rtt: Mapping[str, Any] | None) -> list[str]:
    """Return what has to be said first, whatever the answer is."""
    found = []
    if not knows["holds"]:
        found.append(
            "The original did not know these facts well enough by the headline probes, so there was little to unlearn."
        )
    if not gone["holds"]:
        names = [PROBES.get(one["probe"], one["probe"]) for one in gone["probes"] if not one["at_floor"]]
        found.append(
            f"The model is not unlearned by every probe: it still shows facts by {listed(names)}. What comes back "
            "there was never gone."
        )
    if gone["below_floor"]:
        names = [PROBES.get(one["probe"], one["probe"]) for one in gone["probes"] if one["below_floor"]]
        found.append(
            f"By {listed(names)} the model answers below the floor: it knows which choice to avoid, which is no "
            "forgetting."
        )
    if rtt is not None and rtt["learned_t"] is False:
        found.append("RTT did not learn T, so that what it brought back is a lower bound of what it could.")
    return found


def unjudged(tried: Iterable[str], probe: str) -> list[dict[str, str]]:
    """Return the attacks that were made and cannot be judged by a probe, and that the report has them."""
    why = (
        f"made, but it cannot be asked by {PROBES.get(probe, probe)}, so nothing above reads it; the report has what "
        "it brought back"
    )
    return [{"attack": name, "why": why} for name in tried if not settings.judged(name, probe)]


def surer(kept: Mapping[str, Any], strongest: Mapping[str, Any] | None, tried: Mapping[str, Any]) -> list[str]:
    """Return what it would take to be surer, in sentences."""
    found, n = [], kept["questions"]["data"]["questions"]
    more = findings.needed(strongest, HALF_WIDTH) if strongest else None
    if more is not None and more > n:
        found.append(
            f"More questions: with about {more:,} the strongest attack's 95 % interval has a half-width of .05; "
            f"there were {n:,}."
        )
    if not kept["questions"]["control"]:
        found.append(
            "A control: as many questions of the same form about facts that the original never saw, as --control-data."
        )
    known, told = plugins.attacks(), kept["not_tried"]
    if short := [one["attack"] for one in told if "budget of time" in one["why"]]:
        found.append(f"More time: the budget left out {', '.join(dict.fromkeys(short))}, or a part of it.")
    training = [one["attack"] for one in told if one["why"] in (NOT_TRAINED, NOT_NAMED) and known[one["attack"]].trains]
    if training:
        retain = [name for name in training if known[name].uses_retain and not kept["questions"]["retain"]]
        needs = f" ({' and '.join(retain)} with --retain-data)" * bool(retain)
        found.append(f"Attacks that train: name {', '.join(training)} with --attacks, beside the others{needs}.")
    if any(plugins.attacks()[name].drawn for name in tried):
        found.append(
            "Repeats: an attack in another order of its texts brings back something else. The study file's repeats, "
            "with attack: 3, tell how much that matters, in tables/runs.csv."
        )
    if not kept["questions"]["retain"]:
        found.append("Questions about facts that had to stay, as --retain-data: was the model simply broken?")
    found.append("More models: this is one. A statement about a method takes several seeds of it, each with a verdict.")
    return found
