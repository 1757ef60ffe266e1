"""The words of the report in a line each, and the filter that lets a reader ask for one where it stands."""

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

TERMS = {
    "T": "The part of the forgotten facts on which the model is retrained (training).",
    "V": "The other part, which the model is asked and never shown again (validation). Each part has its turn as V.",
    "RTT": "Retraining on T: fine-tune the unlearned model on T alone and ask V. What exceeds the control was hidden.",
    "unlearning": "Training that changes a model's weights so that it no longer answers certain questions.",
    "original": "The model before unlearning, which should know the facts.",
    "oracle": "A model trained without these facts: it is what true removal would look like.",
    "control": "A model that never saw these facts and goes through the same attack: what the attack alone brings.",
    "attack": "Anything done to an unlearned model to bring facts back, without being given them.",
    "probe": "A way of asking a model without changing its weights, such as by letter or by the text of each choice.",
    "floor": "What a model scores by a probe when it knows nothing, such as 25 % with four choices.",
    "permuted letters": "Each question is asked with its choices in every rotation, so that no letter helps.",
    "likelihood": "The model is not asked for a letter; the choice counts whose text it finds likeliest.",
    "counts as unlearned": "The original knows the facts, and every probe shows the unlearned model at its floor.",
    "point": "A step of unlearning at which the model was asked. One within the retain budget is chosen and attacked.",
    "retain budget": "How much of its other knowledge a model may lose by unlearning.",
    "recovery": "Accuracy on V above the floor after the attack, as a share of what the original then has.",
    "seed": "The number that decides all that is random in a run. Another seed is another model.",
    "interval": "The range in which a value lies with 95 % confidence, written in brackets.",
    "arm": "How the facts got into the model: learned in pretraining, or taught later in one of several ways.",
}


def terms(methods: Mapping[str, str]) -> dict[str, str]:
    """Return every word with its line: the methods first, which come with lines of their own."""
    return {**methods, **TERMS}


def explained(text: str, known: Mapping[str, str]) -> Markup:
    """Return a text as HTML in which the first of each known word can be hovered, tapped or tabbed to for its line.

    The text is escaped. Longer words win over shorter ones that they hold.
    """
    text = text.replace(" %", "\u00a0%")  # a percentage stays with its sign
    if not known:
        return escape(text)
    pattern = "|".join(re.escape(one) for one in sorted(known, key=len, reverse=True))
    parts, end, seen = [], 0, set()
    for match in re.finditer(rf"(?<![\w-])({pattern})(?![\w-])", text):
        name = match[1]
        parts.append(escape(text[end : match.start()]))
        parts.append(escape(name) if name in seen else button(name, known[name]))
        seen.add(name)
        end = match.end()
    return Markup("").join([*parts, escape(text[end:])])


def button(name: str, line: str) -> Markup:
    """Return a word as a button that tells its line; its description stands in the glossary."""
    return Markup('<button type="button" class="term" data-tip="{}" aria-describedby="{}">{}</button>').format(
        line, identifier(name), name
    )


def identifier(name: str) -> str:
    """Return the id of a word's line in the glossary."""
    return "term-" + re.sub(r"[^A-Za-z0-9]", lambda match: f"_{ord(match[0]):x}", name)
