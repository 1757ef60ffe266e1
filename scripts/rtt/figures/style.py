"""What all figures share: names, colours, markers, numbers, and settings that make their bytes the same every time."""

import io
import math
from collections.abc import Callable, Mapping, Sequence

from matplotlib import style
from matplotlib.figure import Figure

from rtt.study import plugins
from rtt.study.names import STRONGEST

ARMS = {
    "pretrained": "learned in pretraining",
    "taught": "taught later",
    "taught_shuffled": "taught later, choices shuffled",
    "taught_same_data": "taught later, same data",
}
FACTS = {
    "pretrained": "facts learned in pretraining",
    "taught": "facts taught later, as in the paper",
    "taught_shuffled": "facts taught later, with choices shuffled and sentences",
    "taught_same_data": "facts taught later with the same data as in pretraining",
}
DATASETS = {
    "years": "Years",
    "dates_years_trimmed": "Years",
    "mmlu": "MMLU",
    "mmlu_cats_random_trimmed": "MMLU",
    "wmdp": "WMDP-Deduped",
    "wmdp_deduped": "WMDP-Deduped",
    "random_bd": "Random Birthdays",
    "random_birthdays": "Random Birthdays",
}
ARM_MARKERS = {"pretrained": "o", "taught": "s", "taught_shuffled": "^", "taught_same_data": "D"}
# Of methods that name none of their own, or that are not installed here. As the methods' colours these are Okabe and
# Ito's, safe for colour-blind readers; dashes and markers repeat what the colours say.
SPARE = ("#E69F00", "#56B4E9")
BLACK, GREY, FLOOR = "#000000", "#666666", "#999999"
# A status that is not `ok`, as a sign beside the method's name and as words in the legend.
STATUS = {
    "none_within_budget": ("¶", "no point within the budget"),
    "not_known": ("#", "original does not know the facts"),
    "original_not_learned": ("×", "no rate: the attack on the original did not learn T"),
    "undefined": ("§", "rate undefined: attacked original at the floor"),
    "below_floor": ("†", "below the floor, which is not forgetting"),
    "not_unlearned": ("‡", "not unlearned by every probe"),
    "attack_failed": ("≥", "lower bound: the attack did not learn T"),
}
RATES = {"recovery": "ratio", "recovery_corrected": "floor-corrected ratio"}
PROBES = {  # in sentences; in the tables' order
    "letter_permuted": "permuted letters",
    "letter": "letters",
    "letter_calibrated": "calibrated letters",
    "likelihood": "likelihood",
    "likelihood_token": "likelihood per token",
    "likelihood_byte": "likelihood per byte",
    "likelihood_fresh": "likelihood of fresh choices",
    "cloze": "cloze",
    "few_shot": "few-shot letters",
    "sampled": "sampled answers",
    STRONGEST: "strongest probe",
}
FLOORS = {  # what a model scores that knows nothing, by probe; others: one over the number of choices
    "letter": "T's majority letter",
    "few_shot": "T's majority letter",
    "letter_calibrated": "the other half's majority letter",
    "likelihood": "the shortest choice",
    "sampled": "as many random choices as there are samples",
}
CHANCE = "one over the number of choices"

WIDTH = 7.2  # inches: two columns of a journal, or a laptop's reading width
DPI = 200
# Text becomes outlines of the DejaVu Sans that matplotlib ships: no reader's fonts can move it. The salt fixes the ids.
RC = {
    "svg.hashsalt": "unlearning-rtt",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,  # a dataset's name may hold dollar signs
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.titlesize": 9.5,
    "lines.linewidth": 1.2,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


def settings():
    """Return a context in which matplotlib has its defaults and `RC`, whatever the user's matplotlibrc says."""
    return style.context(["default", RC])


def colour(method: str, methods: Sequence[str]) -> str:
    """Return a method's own colour, the same in all figures; those of `methods` without one take spare ones."""
    spare = [name for name in methods if not _own(name, "colour")]
    return _own(method, "colour") or SPARE[spare.index(method) % len(SPARE)]


def dash_of(method: str):
    """Return a method's line style."""
    return _own(method, "dash") or "-"


def marker_of(method: str) -> str:
    """Return a method's marker."""
    return _own(method, "marker") or "P"


def _own(method: str, key: str):
    return getattr(plugins.methods().get(method), key, None)


def lighter(colour: str, share: float) -> tuple[float, float, float]:
    """Mix `share` (0..1) of white into a hex colour."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return tuple(part + (1 - part) * share for part in parts)


def number(value: float | None, digits: int = 2) -> str:
    """Write a fraction without its leading zero: `.83`, `1.00`, `-.05`; an unknown one as an en dash."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("0.", ".", 1) if text.removeprefix("-").startswith("0.") else text


def magnitude(value: float) -> str:
    """Write a number that may be large: `3.14`, `123`, `1e+43`; an unknown one as an en dash."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}" if value < 1e6 else f"{value:.0e}"


def interval(value: float, low: float, high: float) -> str:
    """Write a value with its interval: `.83 [.77, .88]`; without ends, the value alone."""
    ends = "" if math.isnan(low) or math.isnan(high) else f" [{number(low)}, {number(high)}]"
    return number(value) + ends


def dataset_title(key: str) -> str:
    """Return a dataset's readable name; an unknown one's is its key."""
    return DATASETS.get(key.lower().replace("-", "_"), key)


def value_of(row: Mapping, column: str) -> str:
    """Write a row's value with its interval; for a measure in its `cannot_tell`, these words and the interval."""
    text = interval(row[column], row[f"{column}_low"], row[f"{column}_high"])
    if column in str(row["cannot_tell"]).split(";"):
        return f"cannot tell{text.removeprefix(number(row[column]))}"
    return text


def span(values: Sequence[float], write: Callable[[float], str] = number) -> str:
    """Write the range of some numbers: `.79 to .96`, or `.79` where both ends read the same."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "unknown"
    low, high = write(min(known)), write(max(known))
    return low if low == high else f"{low} to {high}"


def percent(fraction: float) -> str:
    """Write a budget: `10 %`, `2.5 %`."""
    return f"{100 * fraction:g} %"


def svg_bytes(figure: Figure) -> bytes:
    """Render a figure as SVG, without date and program. Call within `settings()`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def png_bytes(figure: Figure) -> bytes:
    """Render a figure as PNG at `DPI` dots per inch, without date and program. Call within `settings()`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
