"""A study that trains on sentences of which a folder has no file stops before any job."""

import json

import pytest
import tiny
from data_builder import dataset, write
from rtt.errors import UserError
from rtt.study.expand import Runs
from rtt.study.schema import Study

METHOD = {"learning_rate": 1e-3, "batch_size": 4, "points": [1]}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with a model, and datasets with all sentences, without RIA sentences, and with none."""
    folder = tmp_path_factory.mktemp("study")
    tiny.write_pretrained(folder / "model")
    files = dataset()
    for name, prefixes in (("all", None), ("no_ria", ("whp_", "fwf_")), ("bare", ("whp_", "fwf_", "corpus_"))):
        kept = {file: rows for file, rows in files.items() if prefixes is None or not file.startswith(prefixes)}
        write(folder / name, kept)
    write(folder / "bare", {"corpus_dev.jsonl": [{"text": "few-shot"}]})  # no sentence of a fact
    return folder


def study(forget="all", retain="all", methods=None, **more) -> Study:
    """Return a study on folders by these names."""
    names = {"forget": forget, "strangers": "all", "kept": retain}
    raw = {
        "study": "sentences",
        "model": {"name": "tiny", "path": "model"},
        "data": {"datasets": {name: {"folder": folder} for name, folder in names.items()}},
        "tasks": [
            {
                "dataset": "forget", "arm": "pretrained", "control": "strangers",
                "retain": {"dataset": "kept"}, "retain_eval": {"dataset": "kept"},
            }
        ],
        "methods": methods if methods is not None else {"GD": METHOD},
        "attacks": {"RTT": {"learning_rates": [1e-3], "epochs": 1, "batch_size": 4}},
    }  # fmt: skip
    return Study.model_validate_json(json.dumps(raw | more))


CORPUS = {"RTT": {"learning_rates": [1e-3], "epochs": 1, "batch_size": 4, "loss": "CORPUS"}}
TAUGHT = {
    "teaching": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3, "loss": "NUMBER"},
    "tasks": [
        {
            "dataset": "forget", "arm": "taught", "control": "strangers", "retain": {"dataset": "kept"},
            "retain_eval": {"dataset": "kept"}, "also_taught": {"dataset": "kept"},
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"methods": {"RIA": METHOD}, "forget": "no_ria"},
            "methods.RIA.mcq_share: 0.5: no_ria has no whp_corpus_*.jsonl",
        ),
        ({"methods": {"FIF": METHOD}, "forget": "no_ria"}, "no_ria has no fwf_corpus_*.jsonl, the FIF sentences; set"),
        (
            {"methods": {"GD": METHOD | {"mcq_share": 0.0}}, "forget": "bare"},
            "mcq_share: 0.0: bare has no corpus_*.jsonl",
        ),
        (
            {"methods": {"GD": METHOD | {"mcq_share": 0.0}}, "retain": "bare"},
            "of the retain texts: bare has no corpus_",
        ),
        ({"attacks": CORPUS, "forget": "bare"}, "attacks.RTT.loss: CORPUS: bare has no corpus_*.jsonl"),
        ({**TAUGHT, "retain": "bare"}, "teaching.loss: NUMBER: bare has no corpus_*.jsonl, the true sentences; choose"),
    ],
)
def test_sentences_that_a_folder_lacks(place, changes, message):
    with pytest.raises(UserError) as error:
        Runs(study(**changes), place)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"forget": "bare", "retain": "bare"},  # shown as questions: mcq_share follows by itself
        {"forget": "no_ria"},
        {"methods": {"RIA": METHOD | {"mcq_share": 1.0}}, "forget": "no_ria"},
        {"methods": {}, "forget": "bare"},
        {"methods": {"RIA": METHOD, "FIF": METHOD}},
    ],
)
def test_what_can_be_trained_is_left_alone(place, changes):
    assert Runs(study(**changes), place).attacks
