"""Names that studies, results and figures share: one definition each."""

DEFAULT_STUDY = "config/config.yaml"
DEFAULT = "default"  # the variant that is the study itself


def target_name(method: str, budget: float) -> str:
    """File-name part of an unlearned target: the method and the retain budget in percent."""
    return f"{method}-{budget_name(budget)}"


def budget_name(budget: float) -> str:
    """File-name part of a retain budget: b and its percent."""
    return f"b{round(budget * 100)}"
