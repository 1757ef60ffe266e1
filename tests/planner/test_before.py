"""What is refused before the first job because it cannot fit; the corpus of bad inputs holds the other mistakes."""

from pathlib import Path

import pytest
from rtt.errors import UserError
from rtt.planner.before import Before, check_fits
from rtt.planner.resources import Resources, Site
from rtt.study.expand import Runs
from rtt.study.load import load_study

ROOT = Path(__file__).parents[2]


def fits(site: Site, study: str = "paper", **overrides) -> None:
    loaded = load_study(ROOT / f"config/{study}.yaml", overrides)
    check_fits(Resources(loaded, site, ROOT), Runs(loaded, ROOT))


FOUR = {"launcher": "torchrun", "devices": 4, "deepspeed": "zero3"}
STUDIES = ("paper", "smollm", "config", "faithful", "hiding", "modes/default", "modes/random_bd")


def test_training_that_no_gpu_of_the_site_can_hold_is_refused():
    """AdamW's two states, or Lion's one, with weights and gradients of 8e9 parameters in fp32 are above 96 GB."""
    with pytest.raises(UserError, match=r"study paper: .* needs \d+ GB of each GPU, h100 .* has 80 GB; .*plan"):
        fits(Site(gpu_model="h100"))
    with pytest.raises(UserError, match="--config memory_check=false"):
        fits(Site(gpu_model="rtx4090"), **FOUR)
    fits(Site(gpu_model="h100"), **FOUR)
    fits(Site())  # no model is named: any GPU may come
    fits(Site(gpu_model="rtx4090"), study="smoke")  # a miniature asks for no GPU


def test_training_that_no_node_of_the_site_can_hold_is_refused():
    """Under ZeRO-3 each of four processes loads a whole copy, 32 GB in fp32, and RTT keeps one more."""
    with pytest.raises(UserError, match=r"needs \d+ GB of host memory, a node has 200 GB \(max_memory_gb in site.yaml"):
        fits(Site(gpu_model="h100", max_memory_gb=200), **FOUR)
    fits(Site(gpu_model="h100", max_memory_gb=300), **FOUR)


@pytest.mark.parametrize("name", STUDIES)
def test_studies_of_this_repository_are_accepted(name):
    Before(Runs(load_study(ROOT / f"config/{name}.yaml"), ROOT)).check()
