"""Captions and labels of `snakemake --report` are computed from the study."""

from pathlib import Path

import pytest
from rtt.report.captions import described, labels
from rtt.study.load import load_study


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "config/config.yaml",
            {
                "facts": "pretrained, taught, taught shuffled",
                "methods": "GD, RMU, NPO",
                "budgets": "10 %",
                "attacks": "RTT (3 settings), quantise (2 settings), prompts (2 settings), linear_probe (2 settings), "
                "project (1 setting), RTT_permuted (1 setting)",
                "variants": "none",
            },
        ),
        (
            "config/paper.yaml",
            {
                "facts": "years (pretrained), mmlu (pretrained), wmdp (pretrained), random_birthdays (taught)",
                "model": "llama-3-8b",
                "probes": "letter, letter_permuted, likelihood",
                "variants": "format_mcq, format_answer, hiding",
            },
        ),
        ("config/modes/just_eval.yaml", {"attacks": "none"}),
    ],
)
def test_captions_are_made_of_the_study(path, words):
    study = load_study(Path(__file__).parents[2] / path)
    found = described(study)
    assert found | words == found
    assert labels(found, figure="x") == {"figure": "x"} | {name: found[name] for name in ("facts", "methods", "seeds")}
