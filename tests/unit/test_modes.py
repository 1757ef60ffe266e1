"""The authors' modes (docs/modes.md): each study file sets what their file of that name sets, by hand and by numpy."""

import json
import re

import numpy as np
import pytest
import tiny
from rtt.config import load_study, schema
from rtt.runs import Runs
from test_config import ROOT

FOLDER = ROOT / "config/modes"
MODES = [
    "default", "random_bd", "learn_random_bd", "ft_on_all", "just_eval", "only_ft", "letter_unlearn", "mcq_format",
    "many_cut_sc", "no_ft_many_cut_sc", "their_corpus_with_ft",
]  # fmt: skip


def log_range(start, end, n):
    """Their resolver get_log_range."""
    return np.logspace(np.log10(start), np.log10(end), n).tolist()


# Method, its settings and its grid, from the part of each file that their pipeline reads for the mode's dataset.
UNLEARNING = {
    "default": (
        "GD",
        {"epochs": 5, "mcq_share": 0.0, "sentence_loss": "CORPUS", "learning_rate": 4e-7},
        {"retain_coefficient": [*log_range(1e-3, 1e3, 10), 0, 2, 4]},
    ),
    "random_bd": (
        "GD",
        {
            "epochs": 400, "mcq_share": 0.0, "sentence_loss": "NUMBER", "learning_rate": 64e-7,
            "train_layers": list(range(16, 32)),
        },
        {"retain_coefficient": [0.1, 1]},
    ),
    "letter_unlearn": (
        "GD",
        {"epochs": 2, "mcq_share": 1.0, "mcq_loss": "QUESTION_LETTER_ANSWER", "learning_rate": 4e-7},
        {"retain_coefficient": [*log_range(1e-3, 1e3, 10), 0]},
    ),
    "mcq_format": (
        "GD",
        {"epochs": 4, "mcq_share": 1.0, "mcq_loss": "LETTER_ANSWER", "learning_rate": 16e-7},
        {"retain_coefficient": [*log_range(1e-3, 1e4, 2), 0]},
    ),
    "many_cut_sc": (
        "RMU",
        {"epochs": 5, "mcq_share": 0.0, "samples": 640, "learning_rate": 4e-7},
        {"retain_coefficient": log_range(1e2, 1e4, 2), "steering": [20]},
    ),
    "no_ft_many_cut_sc": (
        "RMU",
        {"epochs": 2, "mcq_share": 0.0, "samples": 320, "learning_rate": 4e-5},
        {"retain_coefficient": log_range(1e2, 1e4, 2), "steering": [40]},
    ),
    "their_corpus_with_ft": (
        "RMU",
        {"epochs": 1, "mcq_share": 0.0, "samples": 320, "learning_rate": 8e-5},
        {"retain_coefficient": [*log_range(1e-2, 1e5, 10), 0], "steering": [20]},
    ),
}  # fmt: skip
# Epochs of fine-tuning (ft.epochs_lst) where RTT runs; its learning rates are get_log_range:1e-7,5e-6,2 in all of them.
RTT = {
    "default": 6, "only_ft": 10, "letter_unlearn": 6, "mcq_format": 6, "many_cut_sc": 6, "no_ft_many_cut_sc": 6,
    "their_corpus_with_ft": 6,
}  # fmt: skip
# Learning rate, epochs and trained layers (None: all) of fine-tuning on all splits.
TEACHING = {
    "learn_random_bd": (2e-7, 15, list(range(16))), "ft_on_all": (1e-6, 10, None), "random_bd": (2e-7, 15, None),
    "just_eval": (2e-7, 15, None), "only_ft": (2e-7, 15, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with a model that was unlearned elsewhere."""
    folder = tmp_path_factory.mktemp("root")
    config = tiny.write_pretrained(folder / "models/unlearned") / "config.json"
    shape = {"hidden_size": 4096, "num_hidden_layers": 32}  # a plan looks at no more than its configuration
    config.write_text(json.dumps(json.loads(config.read_text()) | shape))
    return folder


def expanded(name, root):
    study = load_study(FOLDER / f"{name}.yaml")
    return study, Runs(study, root)


def test_every_mode_is_there_and_no_other():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MODES)


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_unlearns_what_theirs_does(mode, root):
    study, runs = expanded(mode, root)
    assert study.study == f"mode_{mode}"
    found = {(spec.method, getattr(spec.settings, "unlearned_model", None)) for spec in runs.unlearn.values()}
    if mode in ("just_eval", "only_ft"):
        assert found == {("unlearned", "models/unlearned")} and len(runs.unlearn) == 1
        return
    if mode not in UNLEARNING:
        assert not runs.unlearn
        return
    method, settings, grid = UNLEARNING[mode]
    assert found == {(method, None)}
    specs = list(runs.unlearn.values())
    for spec in specs:
        assert {key: getattr(spec.settings, key) for key in settings} == settings
        assert (spec.settings.batch_size, spec.settings.warmup_steps, spec.settings.optimizer) == (4, 24, "lion")
    for key, values in grid.items():
        assert sorted({getattr(spec.settings, key) for spec in specs}) == pytest.approx(sorted(values), rel=1e-5)
    assert len(specs) == np.prod([len(values) for values in grid.values()])


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_attacks_where_theirs_does(mode, root):
    study, runs = expanded(mode, root)
    if mode not in RTT:
        assert study.rtt is None and not runs.attacks and not runs.controls and not runs.originals
        return
    assert runs.attacks and runs.controls and runs.originals
    assert (study.rtt.epochs, study.rtt.loss, study.rtt.v_splits) == (RTT[mode], "QUESTION_LETTER_ANSWER", 2)
    assert study.rtt.learning_rates == pytest.approx(log_range(1e-7, 5e-6, 2))


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_teaches_where_theirs_starts_from_a_taught_model(mode, root):
    study, runs = expanded(mode, root)
    taught = [spec for spec in runs.sources.values() if spec.kind == "teach"]
    if mode not in TEACHING:
        assert not taught
        return
    (spec,) = taught
    settings = spec.training
    assert (settings.learning_rate, settings.epochs, settings.train_layers) == TEACHING[mode]
    assert settings.loss == "LETTER_ANSWER"
    splits = {"learn_random_bd": None, "ft_on_all": None}.get(mode, [f"split_{i}" for i in range(5)])
    assert spec.facts.splits == splits  # None: all ten
    if mode in ("learn_random_bd", "ft_on_all"):
        assert study.keep_models
    also = {"learn_random_bd": None, "ft_on_all": "mmlu"}.get(mode, "random_birthdays")
    assert (spec.also_taught and spec.also_taught.dataset) == also


@pytest.mark.parametrize(
    ("mode", "retain", "forget"),
    [
        ("default", "mmlu", []),
        ("random_bd", "random_birthdays", []),
        ("letter_unlearn", "fineweb_edu", []),
        ("mcq_format", "fineweb_edu", []),
        ("many_cut_sc", "wikitext", ["wmdp_bio_forget", "wmdp_cyber_forget"]),
        ("no_ft_many_cut_sc", "wikitext", ["wmdp_bio_forget", "wmdp_cyber_forget"]),
        ("their_corpus_with_ft", "fineweb_edu", ["wmdp_bio_forget", "wmdp_cyber_forget"]),
    ],
)
def test_a_mode_s_texts_are_those_of_their_dataset(mode, retain, forget, root):
    _, runs = expanded(mode, root)
    for spec in runs.unlearn.values():
        learn = spec.source.retain.learn
        assert getattr(learn, "group", None) or learn.dataset == retain or learn.group == retain
        assert (learn.group if learn.kind == "texts" else learn.dataset) == retain
        assert [texts.group for texts in spec.texts] == forget


# Every key of their eleven files (a dataset's and a method's sub-keys once), and every value of `datasets` in them.
KEYS = """just_eval eval_model_paths only_ft ft_model_paths ft_on_all dont_ft testing raise_exceptions num_gpus model_id
num_layers datasets wandb_project_name results_dir batch_size val_batch_size warmup_steps data_seed eval_every
unlearn.types unlearn.many_cut_sc unlearn.cut_scs unlearn.max_samples unlearn.max_samples_lst
unlearn.save_unlearn_model unlearn.freeze_layers_coeffs unlearn.freeze_layers unlearn.loss_type unlearn.data_format
types_config.*.loss_type datasets_config.*.epochs_lst datasets_config.*.lrs datasets_config.*.rcs ft.num_splits
ft.loss_types ft.freeze_layers_coeffs ft.freeze_layers ft.epochs_lst ft.lrs ft.save_models hydra.run.dir
YEARS YEARS_MMLU_RETAIN MMLU WMDP_CORPUS WMDP_CORPUS_FINEWEB WMDP_CORPUS_MMLU WMDP_MCQ_CORPUS WMDP_MCQ_CORPUS_FINEWEB
WMDP_MCQ_FINEWEB RANDOM_BD RANDOM_BD_SAME_RETAIN RANDOM_BD_ALL_SPLITS RANDOM_BD_WITH_MMLU CUT GD WHP FWF""".split()


def test_the_documentation_maps_every_key_and_mode():
    rows = [line for line in (ROOT / "docs/modes.md").read_text().splitlines() if line.startswith("| `")]
    named = {word for row in rows for word in row.split("|")[1].replace("`", " ").replace(",", " ").split()}
    assert [key for key in [*KEYS, *MODES] if key not in named] == []


def test_the_documentation_names_keys_that_exist():
    names = set(MODES) | {"study", "taught"} | {source for source in ("years", "mmlu", "wmdp", "random_birthdays")}

    def collect(part):
        if isinstance(part, dict):
            names.update(part.get("properties", ()))
            names.update(part.get("enum", ()))
            for value in part.values():
                collect(value)
        elif isinstance(part, list):
            for value in part:
                collect(value)

    collect(schema())
    for line in (ROOT / "docs/modes.md").read_text().splitlines():
        if not line.startswith("| `"):
            continue
        for code in re.findall(r"`([^`]+)`", line.split("|")[2]):
            if "/" in code:
                assert (ROOT / code).exists() or code.startswith("results/"), code
            elif not code.startswith("python"):
                assert set(re.split(r"[.:] ?", code.split(" ")[0].rstrip(":"))) <= names, code
