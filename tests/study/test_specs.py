"""From a study to specs: stable ids, who controls whom, and specs that come back from JSON as they were."""

import json
import re
from pathlib import Path

import pytest
import tiny
from pydantic import ValidationError
from rtt.errors import UserError
from rtt.files import canonical_json, digest, read_json, write_text
from rtt.study.expand import Runs
from rtt.study.load import load_study
from rtt.study.names import target_name
from rtt.study.specs import SPECS, Target, load_spec

METHODS = {name: {"learning_rate": 1e-3, "batch_size": 4, "points": [1, 2]} for name in ("GD", "RMU", "RIA", "FIF")}
FULL = {"arms": ["pretrained", "taught", "taught_same_data"], "methods": METHODS, "seeds": [0, 3]}


def written(folder, spec):
    """Write a spec as the Snakefile does."""
    path = folder / f"{spec.run_id}.json"
    write_text(path, canonical_json(spec.model_dump(mode="json")) + "\n")
    return path


def all_specs(study):
    return list(Runs(study).specs())


def test_the_criteria_rename_no_run():
    """They judge what is there; the points that are chosen, and their retain probes, follow from the scores alone."""
    probes = {"scores": {"probes": ["letter_permuted", "letter", "likelihood"]}}
    criteria = {"headline": ["likelihood_token", "letter"], "known": 0.8, "margin": 0.05, "learned": 0.9}
    named, other = (
        {spec.run_id for spec in all_specs(tiny.study(**FULL, **probes, **more))}
        for more in ({}, {"criteria": criteria})
    )
    assert named == other
    choices = Runs(tiny.study(**FULL, **probes)).choices.values()
    assert {tuple(spec.point_choice.for_retain) for spec in choices} == {("letter_permuted", "likelihood")}


def test_specs_come_back_from_json_as_they_were(tmp_path):
    """Same id, same order of methods, same settings: `attack` pairs points with methods by position."""
    for more in ({"oracle": False}, {"repeats": {"unlearning": 2, "attack": 3}}):
        for spec in all_specs(tiny.study(**FULL, **more)):
            found = load_spec(written(tmp_path, spec), spec.kind)
            assert found == spec and found.run_id == spec.run_id
            assert type(found) is type(spec)
            if spec.kind == "attack":
                assert [u.method for u in found.unlearned] == [u.method for u in spec.unlearned]
                assert [s.run_id for s in found.point_choices] == [s.run_id for s in spec.point_choices]
            if spec.kind == "point_choice":
                assert [u.run_id for u in found.trajectories] == [u.run_id for u in spec.trajectories]
            if spec.kind == "unlearn":
                assert type(found.settings) is type(spec.settings)
                assert hasattr(found.settings, "steering") == (spec.method == "RMU")


def test_ids_are_readable_unique_and_start_with_a_letter():
    ids = [spec.run_id for spec in all_specs(tiny.study(**FULL, repeats={"unlearning": 2, "attack": 2}))]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9_-]*-s\d+-[0-9a-f]{10}", run_id) for run_id in ids)


def test_ids_of_equal_studies_are_equal():
    first, again = (list(map(lambda s: s.run_id, all_specs(tiny.study(**FULL)))) for _ in range(2))
    assert first == again


def test_a_golden_id():
    """A change of the spec's content renames every result: if this fails, that is meant, or a bug."""
    study = tiny.study(data={"generator": dict(tiny.GENERATOR)})
    spec = next(iter(Runs(study).data.values()))
    by_hand = {
        "kind": "data", "seed": 0, "splits": None, "facts_per_split": None,
        "raw": {
            "kind": "raw", "seed": 0, "dataset": "birth_years_a", "birthdays": None, "files": None,
            "people": tiny.GENERATOR | {"long_texts": False, "planted_leaks": 0, "planted_duplicates": 0},
        },
        "policy": {
            "split_leak": "drop", "conflicting_answer": "drop", "duplicate_choice": "drop",
            "duplicate_wrong_choice": "keep", "duplicate_question": "drop", "missing_text": "drop",
            "missing_rows": "keep", "missing_mcq": "keep", "wrong_text": "keep", "future_year": "keep",
            "letter_prior": "keep",
        },
    }  # fmt: skip
    assert spec.run_id == f"birth_years_a-s0-{digest(by_hand)[:10]}" == "birth_years_a-s0-232d17410f"


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from leaves(inner, (*path, i))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def test_any_number_at_any_depth_changes_the_id():
    attack = next(spec for spec in Runs(tiny.study(**FULL)).attacks.values() if spec.arm == "taught")
    raw = attack.model_dump(mode="json")
    seen = set()
    for path, value in leaves(raw):
        changed = json.loads(json.dumps(raw))
        place = changed
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value * (1.5 if isinstance(value, float) else 2) + (value == 0)
        try:
            spec = type(attack).model_validate_json(json.dumps(changed))
        except ValidationError:  # out of range
            continue
        assert spec.run_id.startswith("attack-RTT-taught-birth_years_b-s")
        assert spec.run_id[-10:] != attack.run_id[-10:], path
        seen.add(path)
    assert len(seen) > 120
    depths = {path[:2] + path[-1:] for path in seen if len(path) >= 4}
    assert {("unlearned", 1, "steering"), ("source", "base", "hidden_size"), ("source", "base", "steps")} <= depths


def merged(raw, patch):
    if not isinstance(patch, dict):
        return patch
    return raw | {key: merged(raw.get(key), value) for key, value in patch.items()}


@pytest.mark.parametrize(
    "key, value, moved",
    [
        ("pretraining", {"steps": 4}, {"pretrain", "original", "teach", "unlearn", "point_choice", "attack"}),
        ("model", {"hidden_size": 24}, {"pretrain", "original", "teach", "unlearn", "point_choice", "attack"}),
        ("teaching", {"epochs": 2}, {"teach", "unlearn", "point_choice", "attack"}),
        ("attacks", {"RTT": {"epochs": 3}}, {"attack"}),
        ("keep_models", True, set()),
        ("study", "other", set()),
        ("oracle", False, {"pretrain", "original", "attack"}),
        ("criteria", {"known": 0.8}, set()),
        ("repeats", {"attack": 2}, {"attack"}),
        ("repeats", {"unlearning": 2}, {"attack"}),
    ],
)
def test_a_change_reaches_the_runs_below_it_and_no_other(key, value, moved):
    base = tiny.study(**FULL)
    raw = base.model_dump(mode="json")
    new = tiny.study(**FULL | {key: merged(raw[key], value)})
    before, after = ({spec.run_id: spec.kind for spec in all_specs(study)} for study in (base, new))
    assert {before[run_id] for run_id in before.keys() - after.keys()} == moved


@pytest.mark.parametrize("content", ["as it is", "retain_coefficient", "seed", "kind", "extra", "json", "list"])
def test_a_damaged_spec_file(tmp_path, content):
    spec = next(spec for spec in all_specs(tiny.study(**FULL)) if spec.kind == "unlearn")
    path = written(tmp_path, spec)
    raw = read_json(path)
    if content == "seed":
        raw["seed"] = 9  # valid, but not what the name says
    elif content == "kind":
        raw["kind"] = "attack"
    elif content == "extra":
        raw["extra"] = 1
    elif content == "retain_coefficient":
        del raw["settings"]["retain_coefficient"]  # the default would fill it in
        raw["settings"]["points"] = [3]
    text = {"json": "{", "list": "[]"}.get(content, json.dumps(raw))
    path.write_text(text)
    if content == "as it is":
        assert load_spec(path, "unlearn") == spec
    else:
        with pytest.raises(UserError, match=re.escape(str(path))):
            load_spec(path, "unlearn")


def test_roles_of_sources_and_facts():
    runs = Runs(tiny.study(**FULL))
    # per seed 3 originals, the base of the oracle, and the scores of control and oracle before an attack
    assert len(runs.data) == 6 and len(runs.sources) == 12 and len(runs.unlearn) == 24
    assert len(attacked(runs)) == 6
    for attack in attacked(runs):
        source = attack.source
        dataset = "birth_years_a" if attack.arm == "pretrained" else "birth_years_b"
        assert attack.facts.dataset == source.facts.dataset == dataset and source.arm == attack.arm
        assert source.retain.learn.dataset == source.retain.held_out.dataset == "cities"
        assert all(s.source == source for s in attack.point_choices)
        if attack.arm != "pretrained":
            assert source.base.facts.dataset == "birth_years_a"
            assert source.base.run_id in runs.sources
    same = [s for s in runs.sources.values() if getattr(s, "arm", "") == "taught_same_data"]
    assert all(s.training == s.base.training for s in same) and len(same) == 2


def controls(runs):
    return [spec for spec in runs.attacks.values() if spec.arm == "control"]


def attacked(runs):
    return [spec for spec in runs.attacks.values() if spec.arm != "control"]


def befores(runs):
    return [spec for spec in runs.sources.values() if spec.kind == "original" and spec.arm == "control"]


def test_a_study_that_says_so_has_no_control_and_else_the_same_runs(tmp_path):
    tiny.write_pretrained(tmp_path / "model")
    (task,) = tiny.TASKS
    with pytest.raises(ValidationError, match="attacks need it: name facts that the model never saw; or false"):
        tiny.tasks_study(tmp_path, tasks=[{key: value for key, value in task.items() if key != "control"}])
    whole = Runs(tiny.tasks_study(tmp_path), tmp_path)
    without = Runs(tiny.tasks_study(tmp_path, tasks=[task | {"control": False}]), tmp_path)
    assert controls(whole) and not controls(without)
    kept = {spec.run_id for spec in whole.specs() if spec not in controls(whole) and "strangers" not in spec.run_id}
    assert {spec.run_id for spec in without.specs()} == kept


def test_a_control_serves_every_arm_and_an_oracle_the_pretrained_one():
    runs = Runs(tiny.study(**FULL))
    found = {(spec.seed, spec.source.facts.dataset, spec.facts.dataset): spec for spec in controls(runs)}
    assert len(found) == len(controls(runs)) == 4  # two per seed
    for seed in (0, 3):
        control, oracle = found[seed, "birth_years_a", "birth_years_b"], found[seed, "birth_years_b", "birth_years_a"]
        assert control.control_for == ["pretrained", "taught", "taught_same_data"]
        assert oracle.control_for == ["pretrained"]  # the base that taught arms begin with is their oracle
        own = {spec.arm: spec.facts for spec in attacked(runs) if spec.seed == seed}
        assert oracle.facts == own["pretrained"] and control.facts == own["taught"] == own["taught_same_data"]
        for spec in (control, oracle):
            assert spec.targets == [Target(name="control", kind="control")] and not spec.unlearned
            assert spec.source.facts.seed == spec.facts.seed == seed
        assert oracle.source.training == control.source.training and oracle.source.retain == control.source.retain


@pytest.mark.parametrize("oracle", [None, False, True])
@pytest.mark.parametrize("arms", [["taught"], ["pretrained"], ["taught_shuffled", "pretrained"]])
def test_controls_of_fewer_arms(arms, oracle):
    runs = Runs(tiny.study(**FULL | {"arms": arms, "seeds": [0]}, oracle=oracle))
    served = [(spec.facts.dataset, spec.control_for) for spec in controls(runs)]
    own = [("birth_years_a", ["pretrained"])] if "pretrained" in arms and oracle is not False else []
    assert served == [("birth_years_b", arms), *own]


def test_the_models_of_controls_are_scored_before_their_attack():
    runs = Runs(tiny.study(**FULL))
    scored = {(spec.base.run_id, spec.facts.run_id, *spec.control_for) for spec in befores(runs)}
    assert scored == {(spec.source.run_id, spec.facts.run_id, *spec.control_for) for spec in controls(runs)}
    assert len(befores(runs)) == 4 and {spec.run_id for spec in befores(runs)} <= set(runs.eval_ids())
    assert all(spec.run_id.startswith("original-control-miniature-") for spec in befores(runs))
    assert not controls(Runs(tiny.study(attacks={}))) and not befores(Runs(tiny.study(attacks={})))
    with pytest.raises(ValidationError, match=r"only a miniature .arms. can be trained without the facts"):
        tiny.tasks_study(Path("any"), oracle=True)


def test_tasks_that_share_a_control_score_it_once(tmp_path):
    """They may differ in what must stay, which nobody asks of a control."""
    tiny.write_pretrained(tmp_path / "model")
    (task,) = tiny.TASKS
    sets = {"people": tiny.PEOPLE | tiny.TWO, "others": tiny.PEOPLE | tiny.TWO, "strangers": tiny.PEOPLE | tiny.TWO}
    other = task | {"dataset": "others", "retain": {"dataset": "others", "splits": ["split_2"]}}
    runs = Runs(tiny.tasks_study(tmp_path, tasks=[task, other], data={"datasets": sets}))
    assert len(befores(runs)) == len(controls(runs)) == 1


def test_repeats_are_other_runs_of_the_same():
    """Of unlearning: trajectories, point choices and targets of their own. Of an attack: within one run."""
    plain, once = Runs(tiny.study(**FULL)), Runs(tiny.study(**FULL, repeats={"unlearning": 1, "attack": 1}))
    assert [spec.run_id for spec in plain.specs()] == [spec.run_id for spec in once.specs()]
    runs = Runs(tiny.study(**FULL, repeats={"unlearning": 3, "attack": 2}))
    assert len(runs.unlearn) == 3 * 24 and len(runs.choices) == 3 * 24 and len(runs.attacks) == len(plain.attacks)
    assert set(plain.unlearn) < set(runs.unlearn) and set(plain.choices) < set(runs.choices)
    assert sorted(spec.repeat for spec in runs.unlearn.values()) == [0] * 24 + [1] * 24 + [2] * 24
    attack = next(spec for spec in attacked(runs) if spec.arm == "taught")
    assert (attack.repeats, attack.unlearning_repeats) == (2, 3)
    assert [(c.method, c.repeat) for c in attack.point_choices] == [(m, r) for m in METHODS for r in range(3)]
    assert {c.run_id for c in attack.point_choices} <= set(runs.choices)
    names = [f"{m}-{b}{r}" for m in METHODS for r in ("", "-r1", "-r2") for b in ("b10", "b100")]
    assert [target.name for target in attack.targets] == ["original", *names]
    assert [target.repeat for target in attack.targets] == [0, *([0, 0, 1, 1, 2, 2] * 4)]
    for control in controls(runs):
        assert (control.repeats, control.unlearning_repeats) == (2, 1)


def test_what_draws_nothing_is_not_repeated(tmp_path):
    """quantise rounds the same weights alike; a model that was unlearned elsewhere is there once."""
    tiny.write_pretrained(tmp_path / "model")
    tiny.write_pretrained(tmp_path / "mine", seed=1)
    repeats = {"unlearning": 2, "attack": 3}
    attacks = {"RTT": tiny.tasks(tmp_path)["attacks"]["RTT"], "quantise": {}}
    external = {"mine": str(tmp_path / "mine")}
    runs = Runs(tiny.tasks_study(tmp_path, repeats=repeats, attacks=attacks, external_models=external))
    assert {(spec.attack, spec.repeats) for spec in runs.attacks.values()} == {("RTT", 3), ("quantise", 1)}
    assert sorted((c.method, c.repeat) for c in runs.choices.values()) == [("GD", 0), ("GD", 1), ("mine", 0)]
    for spec in attacked(runs):
        assert {c.run_id for c in spec.point_choices} <= set(runs.choices)
        assert {(t.method, t.repeat) for t in spec.targets if t.method} == {
            (c.method, c.repeat) for c in spec.point_choices
        }


def test_the_splits_of_the_point_choice_stand_in_every_spec_that_asks_them():
    people = tiny.GENERATOR | {"choice_facts": 4}
    study = tiny.study(**FULL, data={"generator": people | {"first_names": 8}}, point_choice={"splits": ["choice"]})
    runs = Runs(study)
    assert all(spec.choice_splits == ["choice"] for spec in runs.sources.values())
    assert all(spec.point_choice.splits == ["choice"] for spec in (*runs.unlearn.values(), *runs.choices.values()))
    assert all(spec.left_out == ["choice"] for spec in runs.attacks.values())  # controls as well, for as many questions
    for splits, message in (
        ([], "set point_choice.splits: .choice."),
        (["choice", "test"], "no split test; the forget facts have split_0, split_1, choice"),
        (["choice", "split_0"], "attacks need two splits beside them"),
    ):
        with pytest.raises(ValidationError, match=message):
            tiny.study(**FULL, data={"generator": people | {"first_names": 8}}, point_choice={"splits": splits})


def test_attacks_name_the_facts_that_few_shot_shows_and_none_without_it():
    with_shots = Runs(tiny.study(scores={"probes": ["letter", "few_shot"]}))
    assert {spec.shots for spec in Runs(tiny.study()).attacks.values()} == {None}
    assert len(with_shots.attacks) > 1
    for spec in with_shots.attacks.values():
        assert spec.shots.learn.run_id in with_shots.data and spec.shots.learn != spec.facts


def test_targets_are_the_same_for_each_arm():
    runs = Runs(tiny.study(**FULL, retain_budgets=[0.05, 1.0]))
    names = [[target.name for target in attack.targets] for attack in attacked(runs)]
    expected = ["original", *(f"{m}-{b}" for m in ("GD", "RMU", "RIA", "FIF") for b in ("b5", "b100"))]
    assert names == [expected] * 6
    assert [target_name("GD", b) for b in (0.05, 0.1, 0.3, 1.0)] == ["GD-b5", "GD-b10", "GD-b30", "GD-b100"]
    assert [target_name("GD", 0.1, repeat) for repeat in range(3)] == ["GD-b10", "GD-b10-r1", "GD-b10-r2"]


def test_a_study_without_a_method_runs_none():
    runs = Runs(tiny.study(**FULL | {"methods": {"GD": METHODS["GD"]}}))
    assert {spec.method for spec in runs.unlearn.values()} == {"GD"}
    assert not [stem for stem in runs.eval_ids() if "RMU" in stem]


def test_plan_names_every_evaluation_once():
    plan = Runs(tiny.study(**FULL)).plan()
    # per seed: 3 originals, 12 trajectories, 3 arms x (original + 4 methods x 2 budgets); control and oracle, each
    # before and after the attack
    assert list(plan["variants"]) == ["default"]
    default = plan["variants"]["default"]
    assert len(default["evals"]) == len(set(default["evals"])) == 2 * (3 + 12 + 3 * 9 + 4)
    assert len(default["point_choices"]) == 24 and default["reported"] == "nested"
    # pretraining, 2 teachings, 12 trajectories, 3 attacks; the oracle's pretraining, and two controls as above
    assert len(plan["manifests"]) == len(set(plan["manifests"])) == 2 * (3 + 12 + 3 + 5) and len(plan["data"]) == 6


def test_kinds_are_complete(tmp_path):
    tiny.write_pretrained(tmp_path / "model")
    texts = {"texts": "wikitext", "count": 3}
    pretrained = tiny.tasks_study(tmp_path, tasks=[{**tiny.TASKS[0], "retain": texts}])
    specs = [*all_specs(tiny.study(**FULL)), *all_specs(pretrained)]
    assert {spec.kind for spec in specs} == set(SPECS)
    for spec in all_specs(pretrained):
        found = load_spec(written(tmp_path, spec), spec.kind)
        assert found == spec and found.run_id == spec.run_id


@pytest.mark.parametrize("path", ["config/config.yaml", "config/smoke.yaml"])
def test_studies_of_this_repository_have_specs_that_come_back(tmp_path, path):

    root = Path(__file__).parents[2]
    for spec in all_specs(load_study(root / path)):
        assert load_spec(written(tmp_path, spec), spec.kind) == spec


def test_a_control_takes_as_many_facts_as_the_task_that_it_controls(tmp_path):
    """T, V and the number of looks must be equal, however many facts the control's dataset offers."""
    tiny.write_pretrained(tmp_path / "model")
    people, strangers = tiny.PEOPLE | tiny.TWO | {"facts_per_split": 3}, tiny.PEOPLE | tiny.TWO | {"facts_per_split": 2}
    runs = Runs(tiny.tasks_study(tmp_path, data={"datasets": {"people": people, "strangers": strangers}}))
    assert {spec.facts.facts_per_split for spec in runs.attacks.values()} == {3}
    assert {spec.facts.dataset for spec in controls(runs)} == {"strangers"}


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        ({}, [1, 1, 1, 1, 2, 2, 2, 2]),  # RTT alone, two ways to quantise together
        ({"attack_jobs": "method"}, [1] * 18),
        ({"variants": {"other": {"attacks": {"quantise": {"precision": "bf16"}}}}}, [1] * 12),
    ],
)
def test_attacks_that_train_nothing_share_a_job(changes, sizes):
    """Jobs by checkpoints and precision; with one process per method every run has its own."""
    attacks = {"RTT": {"learning_rates": [1e-3], "epochs": 1, "batch_size": 4}, "quantise": {"bits": [8]}}
    variants = {"other": {"attacks": {"quantise": {"bits": [4]}}}}
    study = {"attacks": attacks, "variants": variants, "arms": ["pretrained", "taught"]} | changes
    runs = Runs(tiny.study(**study))
    jobs = runs.attack_jobs()
    assert sorted(map(len, jobs)) == sizes
    assert sorted(spec.run_id for job in jobs for spec in job) == sorted(runs.attacks)
    for job in jobs:
        assert len({spec.run_id for spec in job}) == len(job)
        assert len(job) == 1 or {spec.attack for spec in job} == {"quantise"}
        assert len({json.dumps(spec.checkpoints) for spec in job}) == 1
