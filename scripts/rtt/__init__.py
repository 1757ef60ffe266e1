"""Unlearning RTT: does an unlearning method remove facts from the weights, or hide them?

RTT (retraining on T) is the test of Deeb & Roger 2024 (arXiv 2410.08827): split independent facts into T and V,
unlearn both, fine-tune on T alone, measure V.

The public interface is that of `rtt.api` (docs/api.md): `load_study`, `Study`, `Evaluation`, `score`, `Scores`,
`verdict`, `Verdict`, `UserError`. It is loaded when a name of it is first used.
"""

import importlib

__version__ = "0.1.0"
__all__ = ["Evaluation", "Scores", "Study", "UserError", "Verdict", "load_study", "score", "verdict"]


def __getattr__(name: str):
    if name in __all__:
        return getattr(importlib.import_module("rtt.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
