"""A figure for the page: inline SVG, what its parts show, its words."""

import re
from dataclasses import dataclass

from markupsafe import Markup

from rtt.figures import render_told
from rtt.figures.parts import Spot
from rtt.figures.view import View
from rtt.figures.words import alternative, title, told

CAPTIONS = {
    "accuracy": "What the paper's figures show, per dataset and method: accuracy on V, with 95 % Wilson intervals. "
    "Open marks: unlearned, before RTT. Filled marks: after RTT.",
    "recovery": "What RTT brings back, as a share of what the original has after RTT, with 95 % bootstrap intervals. "
    "The title counts by the floor-corrected ratio.",
    "tradeoff": "Each unlearning run from the model before it (star) through its points; large open marks: selected.",
    "curves": "Accuracy after each epoch of RTT, pooled over the V splits. Of these looks, one is chosen.",
    "sensitivity": "Accuracy on V with 95 % intervals, each row with one thing chosen otherwise than reported. A row "
    "of a learning rate has its last epoch, which nobody chose.",
}
# Parts of these can be reached with the keyboard; of the others there are too many, and their words say the same.
BY_KEYBOARD = ("accuracy", "recovery")


@dataclass(frozen=True)
class Image:
    """What the page shows of one figure."""

    name: str
    title: str
    told: list[str]
    caption: str
    svg: Markup
    spots: list[Spot]
    focus: bool
    command: str


def image(name: str, view: View, tables: str) -> Image:
    """Return a figure for the page. `tables`: the folder to name in the command that draws it again."""
    svg, spots = render_told(name, view)
    command = f"python -m rtt figure {name} --tables {tables} --out {name}.svg {name}.png"
    drawn = inline_svg(svg.decode(), name, alternative(name, view))
    return Image(name, title(name, view), told(name, view), CAPTIONS[name], drawn, spots, name in BY_KEYBOARD, command)


def inline_svg(svg: str, prefix: str, alt: str) -> Markup:
    """Return an SVG file's root element for HTML: ids made unique by `prefix`, an image with an alternative text.

    Comments, metadata and the style element are left out; the style's two properties go to the root, where they cannot
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
