"""The attacks of a verdict and their settings, by the model's size; and what a budget of time leaves of them."""

import subprocess

import pytest
import yaml
from rtt.attacks.quantise import Quantise
from rtt.attacks.rtt import RTT
from rtt.errors import UserError
from rtt.judging import budget, settings
from rtt.judging.models import Given
from rtt.judging.questions import Asked
from rtt.judging.study import Parts, study_of
from rtt.planner import memory
from rtt.planner.gpus import DEVICES
from rtt.planner.plan import Plan
from rtt.study import plugins
from rtt.study.load import load_study
from rtt.study.names import BY_DEFAULT


@pytest.mark.parametrize("parameters", [300_000, 135_000_000, 1_500_000_000, 8_000_000_000])
@pytest.mark.parametrize("judged_by", [["letter_permuted", "likelihood"], ["likelihood_token", "likelihood_fresh"]])
def test_the_settings_of_rtt_are_those_of_a_study(parameters, judged_by):
    found = RTT.Settings.model_validate(settings.retraining(parameters, judged_by))
    assert ("LETTER" in found.loss) == (judged_by[0] == "letter_permuted")


def test_larger_models_are_trained_more_gently():
    rates = [max(settings.retraining(n, ["likelihood"])["learning_rates"]) for n in (1e6, 1e8, 2e9, 8e9)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 4


@pytest.mark.parametrize(
    ("parameters", "probes", "expected"),
    [
        (300_000, BY_DEFAULT, ["letter_permuted", "likelihood"]),
        (135_000_000, BY_DEFAULT, ["likelihood_token", "likelihood_fresh"]),
        (135_000_000, ["letter", "letter_permuted", "likelihood"], ["likelihood_token", "likelihood"]),
        (8_000_000_000, BY_DEFAULT, ["letter_permuted", "likelihood"]),
    ],
)
def test_the_headline_probes_are_fixed_by_the_size(parameters, probes, expected):
    assert settings.headline(parameters, probes) == expected


def test_every_attack_but_controls_has_settings():
    shared = settings.retraining(135_000_000, ["likelihood"])
    for name, one in plugins.attacks().items():
        if not one.control:
            one.Settings.model_validate(settings.settings_of(name, shared))


def test_a_verdict_rounds_to_nf4_as_well():
    given = settings.settings_of("quantise", settings.retraining(8_000_000_000, ["likelihood"]))
    looks = Quantise.choices(Quantise.Settings(**given))
    assert [one["bits"] for one in looks] == [8, 8, "nf4", 4, 4]


@pytest.mark.parametrize(
    ("attack", "probe", "can"),
    [
        ("linear_probe", "likelihood_token", True),  # from the scores of likelihood
        ("linear_probe", "letter_calibrated", True),
        ("linear_probe", "likelihood_fresh", False),
        ("sampling", "likelihood_token", False),
        ("prompts", "likelihood_token", True),
    ],
)
def test_an_attack_is_judged_by_a_probe_that_comes_from_what_it_answers(attack, probe, can):
    assert settings.judged(attack, probe) is can


def test_adapters_and_vectors_keep_rates_of_their_own():
    shared = settings.retraining(8_000_000_000, ["letter_permuted"])
    for name, one in plugins.attacks().items():
        given, own = settings.settings_of(name, shared), one.Settings.model_fields
        if name in ("RTT_LoRA", "soft_prompt"):
            assert not {"learning_rates", "optimizer"} & given.keys() and given["epochs"] == shared["epochs"]
            assert given["precision"] == "bf16_mixed"
        elif one.trains and not one.control:
            assert {key: given[key] for key in shared if key in own} == {k: v for k, v in shared.items() if k in own}


@pytest.mark.parametrize("parameters", [1_990_000_000, 2_000_000_000, 3_990_000_000, 8_030_261_248])
def test_every_attack_on_a_model_of_up_to_8b_fits_one_gpu_of_80_gb(parameters, tmp_path):
    judged_by = ["letter_permuted", "likelihood"]
    shared = settings.retraining(parameters, judged_by)
    named = {name: one for name, one in plugins.attacks().items() if not one.control}
    asked = Asked("--data", "facts", [])
    parts = Parts(
        Given("llama-3-8b", repository="org/name", commit="a" * 40, parameters=parameters),
        Given("mine", repository="org/mine", commit="b" * 40), asked, "facts", None, None, None, judged_by, judged_by,
        2,
    )  # fmt: skip
    study = study_of("verdict-mine", parts, {name: settings.settings_of(name, shared) for name in named})
    study["data"]["datasets"]["facts"] = {"generate": {"splits": 3, "facts_per_split": 56}}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study))
    plan = Plan(load_study(path), DEVICES["h100"])
    assert plan.stages
    kept = {study["attacks"][name].get("precision") for name in named if not named[name].trains}
    assert kept == {"bf16" if parameters >= settings.HEAVY else None}
    assert parameters * (2 + 2 + 4) < 80e9  # of `prune`: weights, their gradients at once, and their sums in fp32
    assert {one.title for one in named.values() if one.trains} == set(plan.phases)
    for phase in plan.phases.values():
        assert memory.needed(memory.on_device(phase, plan.launch)) < 80e9, phase.stage


@pytest.mark.parametrize(("text", "found"), [("90s", 90), ("30min", 1800), ("1.5 h", 5400), ("1d", 86400)])
def test_a_budget_is_a_time(text, found):
    assert budget.seconds(text) == found


@pytest.mark.parametrize("text", ["30", "min", "0min", "-5min", "1 week", ""])
def test_another_text_is_no_budget(text):
    with pytest.raises(UserError, match="expected a time such as 30min"):
        budget.seconds(text)


GPUS = {
    "NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100-80gb", "NVIDIA A100-SXM4-40GB": "a100-40gb",
    "NVIDIA GeForce RTX 4090": "rtx4090", "NVIDIA L40S": "l40s", "NVIDIA H200": "h200",
}  # fmt: skip


@pytest.mark.parametrize("name", GPUS)
def test_a_gpu_is_known_by_what_nvidia_smi_calls_it(monkeypatch, name):
    done = subprocess.CompletedProcess([], 0, stdout=f"{name}\n{name}\n", stderr="")
    monkeypatch.setattr("rtt.judging.budget.subprocess.run", lambda *_, **__: done)
    assert budget.device() == (DEVICES[GPUS[name]], True)


def test_a_gpu_of_unknown_speed_is_said(monkeypatch):
    done = subprocess.CompletedProcess([], 0, stdout="Tesla K80\n", stderr="")
    monkeypatch.setattr("rtt.judging.budget.subprocess.run", lambda *_, **__: done)
    with pytest.raises(UserError, match=r"the speed of this GPU \(Tesla K80\) is not in the planner's table"):
        budget.device()


class Trains:
    trains, uses_t = True, False


class Asks:
    trains, uses_t = False, False


def costs(some: dict) -> float:
    """Return seconds: 10 for scores, 30 for a training of RTT with 3 a look, 40 for tune, 8 and 4 for the others."""
    rtt = some.get("RTT")
    trained = len(rtt["learning_rates"]) * (30 + 3 * len(rtt["score_epochs"])) if rtt else 0
    return 10 + trained + 40 * ("tune" in some) + 8 * ("round" in some) + 4 * ("prune" in some)


@pytest.fixture
def attacks(monkeypatch):
    kinds = {"RTT": RTT, "tune": Trains, "round": Asks, "prune": Asks}
    monkeypatch.setattr("rtt.judging.budget.plugins.attacks", lambda: kinds)
    rtt = {"learning_rates": [1e-5, 1e-4], "score_epochs": [2, 4]}
    return {"RTT": rtt, "tune": {}, "round": {}, "prune": {}}


@pytest.mark.parametrize(
    ("wanted", "left", "gone"),
    [
        (134, ["RTT", "tune", "round", "prune"], []),
        (133, ["RTT", "round", "prune"], ["tune"]),
        (60, ["RTT", "round", "prune"], ["tune", "RTT"]),
        (50, ["RTT", "prune"], ["tune", "RTT", "round"]),
        (46, ["RTT"], ["tune", "RTT", "round", "prune"]),
        (43, ["RTT"], ["tune", "RTT", "round", "prune", "RTT"]),
    ],
)
def test_a_budget_leaves_out_step_by_step_and_says_what(attacks, wanted, left, gone):
    found, told, needs = budget.fitting(attacks, wanted, costs)
    assert list(found) == left and [name for name, _ in told] == gone
    assert needs == costs(found) <= wanted
    if "RTT" in gone:
        assert found["RTT"]["learning_rates"] == [1e-4] and "1e-05" in dict(told[:2])["RTT"]


def test_a_budget_in_which_nothing_fits_is_refused(attacks):
    with pytest.raises(UserError, match="are too little: the models' scores and RTT alone take about"):
        budget.fitting(attacks, 42, costs)
