"""FIF, fixed incorrect fact."""

from rtt.methods.ria import RIA


class FIF(RIA):
    """RIA's loss on texts that agree on one wrong answer (Deeb & Roger 2024, app. A)."""

    name = "FIF"
    title = "fixed incorrect fact: learn one wrong answer per fact"
    texts = "fixed_wrong"
    order, colour, dash, marker = 4, "#CC79A7", (0, (1, 1.2)), "D"
