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


def test_specs_come_back_from_json_as_they_were(tmp_path):
    """Same id, same order of methods, same settings: `attack` pairs points with methods by position."""
    for two_way in (False, True):
        for spec in all_specs(tiny.study(**FULL, two_way_control=two_way)):
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
    ids = [spec.run_id for spec in all_specs(tiny.study(**FULL, two_way_control=True))]
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
        ("pretraining", {"steps": 4}, {"pretrain", "teach", "unlearn", "point_choice", "attack"}),
        ("model", {"hidden_size": 24}, {"pretrain", "teach", "unlearn", "point_choice", "attack"}),
        ("teaching", {"epochs": 2}, {"teach", "unlearn", "point_choice", "attack"}),
        ("attacks", {"RTT": {"epochs": 3}}, {"attack"}),
        ("keep_models", True, set()),
        ("study", "other", set()),
        ("two_way_control", True, {"attack"}),
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
    assert len(runs.data) == 6 and len(runs.sources) == 6 and len(runs.unlearn) == 24
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


def test_one_way_control_serves_every_arm():
    runs = Runs(tiny.study(**FULL))
    assert len(controls(runs)) == 2  # one per seed
    for control in controls(runs):
        assert control.control_for == ["pretrained", "taught", "taught_same_data"]
        assert control.source.facts.dataset == "birth_years_a" and control.facts.dataset == "birth_years_b"
        assert control.targets == [Target(name="control", kind="control")] and not control.unlearned


def test_two_way_control_gives_each_arm_its_own_facts():
    runs = Runs(tiny.study(**FULL, two_way_control=True))
    assert len(controls(runs)) == 4
    served = {}
    for control in controls(runs):
        assert control.source.facts.dataset != control.facts.dataset  # it never saw them
        assert control.source.facts.seed == control.facts.seed == control.seed
        for arm in control.control_for:
            served[control.seed, arm] = control.facts
    assert len(served) == 6
    for attack in attacked(runs):
        assert served[attack.seed, attack.arm] == attack.facts


@pytest.mark.parametrize("two_way", [False, True])
@pytest.mark.parametrize("arms", [["taught"], ["pretrained"], ["taught_same_data", "pretrained"]])
def test_controls_of_fewer_arms(arms, two_way):
    runs = Runs(tiny.study(**FULL | {"arms": arms, "seeds": [0]}, two_way_control=two_way))
    assert sorted(arm for c in controls(runs) for arm in c.control_for) == sorted(arms)


def test_targets_are_the_same_for_each_arm():
    runs = Runs(tiny.study(**FULL, retain_budgets=[0.05, 1.0]))
    names = [[target.name for target in attack.targets] for attack in attacked(runs)]
    expected = ["original", *(f"{m}-{b}" for m in ("GD", "RMU", "RIA", "FIF") for b in ("b5", "b100"))]
    assert names == [expected] * 6
    assert [target_name("GD", b) for b in (0.05, 0.1, 0.3, 1.0)] == ["GD-b5", "GD-b10", "GD-b30", "GD-b100"]


def test_a_study_without_a_method_runs_none():
    runs = Runs(tiny.study(**FULL | {"methods": {"GD": METHODS["GD"]}}))
    assert {spec.method for spec in runs.unlearn.values()} == {"GD"}
    assert not [stem for stem in runs.eval_ids() if "RMU" in stem]


def test_plan_names_every_evaluation_once():
    plan = Runs(tiny.study(**FULL)).plan()
    # per seed: 3 originals, 12 trajectories, 3 arms x (original + 4 methods x 2 budgets), a control
    assert list(plan["variants"]) == ["default"]
    default = plan["variants"]["default"]
    assert len(default["evals"]) == len(set(default["evals"])) == 2 * (3 + 12 + 3 * 9 + 1)
    assert len(default["point_choices"]) == 24 and default["reported"] == "nested"
    # pretraining, 2 teachings, 12 trajectories, 3 attacks, a control
    assert len(plan["manifests"]) == len(set(plan["manifests"])) == 2 * (3 + 12 + 3 + 1) and len(plan["data"]) == 6


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
