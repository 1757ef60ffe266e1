"""A figure on the page: its SVG inline, what its parts show, its words, and the command that draws it again."""

import re
from dataclasses import dataclass

from markupsafe import Markup

from rtt.figures import render_told, words_steps
from rtt.figures.parts import Spot
from rtt.figures.view import View
from rtt.figures.words import alternative, title, told
from rtt.figures.words_attack import asks_t
from rtt.figures.words_cost import has_cost
from rtt.figures.words_suite import several

HOLLOW = " Hollow marks belong to models that do not count as unlearned."
CAPTIONS = {
    "accuracy": "The figure shows what the paper's figures show, per dataset and method: accuracy on V with 95 % "
    "intervals. Pale marks stand for unlearned models before the attack, full marks for models after it." + HOLLOW,
    "probes": "The same models are asked in several ways before any attack. A model counts as unlearned only where "
    "every probe's one-sided 95 % limit lies within its grey band, which leads from the probe's floor to the floor "
    "plus the margin, and none lies below the floor (99 %). A model that says one letter whatever is asked has one "
    "block in the last row." + HOLLOW,
    "recovery": "The figure shows what the attack brings back, as a share of what the original has after the attack, "
    "with 95 % bootstrap intervals. The title counts by the floor-corrected ratio." + HOLLOW,
    "attacks": "Every attack of this study goes through the same statistics: its setting was chosen on other "
    "questions, and the original, the control and the oracle were attacked alike. 1 is what the original has after the "
    "attack, and 0 is the floor. The strongest attack was chosen on other questions as well, for each model by itself, "
    "and is a lower bound on what all of them bring back." + HOLLOW,
    "cost": "Removal would look like learning anew: V, of which nothing is trained, would stay at its floor, and T "
    "would be learned no faster than by a model that never knew the facts. What was hidden comes back on V while T "
    "alone is trained. FLOPs are 6 times the parameters times the tokens." + HOLLOW,
    "seeds": "Each point is one seed. The original after the attack is 1 and the floor 0; an oracle, which never saw "
    "the facts, shows what removal looks like. Bars are means over seeds with 95 % t intervals: dark over the seeds "
    "that count as unlearned, pale over all known ones with a point." + HOLLOW,
    "attack": "Recovery divides what the unlearned model reaches by what the original reaches, each at a look of its "
    "own choice. Here both are shown at the same looks: along the attack, accuracy on T grows to the right and "
    "accuracy on V upwards, and a dotted line joins the two models at the same last look." + HOLLOW,
    "tradeoff": "Each line leads from the model before unlearning (star) through the points of one unlearning run. "
    "Large marks are the points that were chosen." + HOLLOW,
    "curves": "The lines show accuracy on T and V at each setting of the attack, pooled over the V splits: over "
    "epochs, where its settings have epochs. One of these looks is chosen." + HOLLOW,
    "sensitivity": "The figure shows accuracy on V with 95 % intervals; in each row, one thing is chosen otherwise "
    "than in the reported results. Nobody chose the settings that have a row; of epochs, the last one is shown."
    + HOLLOW,
}
FITS = {"attack": asks_t, "attacks": several, "cost": has_cost}
# Their parts can be reached with the keyboard. The others have too many, and their words say the same.
BY_KEYBOARD = ("accuracy", "probes", "recovery", "seeds")


@dataclass(frozen=True)
class Image:
    """What the page shows of one figure. `summary` and `panels` say it in words; `focus`: the keyboard reaches it."""

    name: str
    number: int
    title: str
    summary: str
    panels: list[str]
    caption: str
    svg: Markup
    spots: list[Spot]
    focus: bool
    command: str


def has_something(name: str, view: View) -> bool:
    """Say whether a figure has something to show, such as several seeds, several attacks or accuracies on T."""
    if name == "seeds":
        return len(view.seeds) > 1
    if name in FITS:
        return FITS[name](view)
    return name != "probes" or (view.probes is not None and not view.probes.empty)


def image(name: str, number: int, view: View, tables: str, *, caption: str = "", beside: View | None = None) -> Image:
    """Return a figure for the page.

    tables: the folder that the command names, quoted for a shell. caption: in the place of the usual one. beside: a
    study whose seeds `seeds` draws among the view's.
    """
    more = {} if beside is None else {"beside": beside}
    svg, spots = render_told(name, view, **more)
    prefix = name if beside is None else f"{name}-beside"
    summary, *panels = told(name, view)
    return Image(
        name=name,
        number=number,
        title=title(name, view),
        summary=summary,
        panels=panels,
        caption=caption or CAPTIONS[name],
        svg=inline_svg(svg.decode(), prefix, alternative(name, view)),
        spots=spots,
        focus=name in BY_KEYBOARD,
        command=f"python -m rtt figure {name} --tables {tables} --out {name}.svg {name}.png",
    )


@dataclass(frozen=True)
class Steps:
    """Figure 1: the test in four steps, wide and, for a phone, narrow; `sentences` say each step of `facts`."""

    image: Image
    narrow: Markup
    sentences: list[words_steps.Step]
    facts: str


def steps(number: int, view: View, tables: str) -> Steps:
    """Return the figure of the test's steps for the page."""
    svg, _ = render_told("steps", view, narrow=True)
    panel = words_steps.shown_panels(view)[0]
    narrow = inline_svg(svg.decode(), "steps-narrow", alternative("steps", view))
    return Steps(
        image("steps", number, view, tables, caption=title("steps", view)),
        narrow,
        words_steps.sentences(view, panel),
        panel.facts,
    )


def inline_svg(svg: str, prefix: str, alt: str) -> Markup:
    """Return the root element of an SVG file for HTML: an image with an alternative text, its ids prefixed.

    Comments, metadata and the style element are left out. The style's two properties go to the root, where they cannot
    reach the page around it.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}-', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r"\n\s*\n+", "\n", svg)
    label = Markup('<svg role="img" aria-label="{}" style="stroke-linejoin:round;stroke-linecap:butt"').format(alt)
    return Markup(svg.replace("<svg", label, 1).strip())
