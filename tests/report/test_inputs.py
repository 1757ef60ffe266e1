"""What the report reads of questions: their answers, and their texts, which are data whatever they hold."""

import json

import pytest
from report_builder import recovery, recovery_row, write_study
from rtt.data.facts import Fact
from rtt.errors import UserError
from rtt.files import digest, write_json
from rtt.report.audits import counts
from rtt.report.inputs import Text, files_read, read_inputs

EVIL = ("<script>alert(1)</script>", '=cmd|"/c calc"!A1', "a\x1b[31m\x00b\u202ec", "\ud800")
MAIN = "letter_permuted"
HEAD = "dataset,arm,model,seed,probe,attack,retain_budget,stage,method,id,group,v_split,answer,right,p_1,p_2\n"


def facts(folder, dataset, name, question="Who?"):
    """Write facts of one question."""
    rest = [["yes"], ["no"], ["no"], {"file": "x", "line": 1}]
    fact = Fact(f"{dataset}/split_0/001", dataset, "split_0", question, list(EVIL), 0, ["0", "1", "2", "3"], *rest)
    path = folder / "data" / name / "facts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fact.row()) + "\n")  # also half a surrogate pair, as an escape


def study(folder, probe=MAIN, runs=None, **keys):
    written = write_study(folder, recovery(recovery_row("GD", probe=probe)))
    document = json.loads((written / "runs.json").read_text()) if (written / "runs.json").is_file() else {}
    document = {"data": [], "manifests": [], "variants": {}, **document, **(runs or {})}
    document["study"] = {**document.get("study", {}), **keys}
    write_json(written / "runs.json", document)
    return written


def texts(folder, **options):
    return read_inputs(folder, folder / "study.yaml", **options).texts


def test_texts_are_data_alone(tmp_path):
    folder = study(tmp_path / "tiny", runs={"data": ["people_p-s0-0123456789"]})
    assert texts(folder) == {} and read_inputs(folder, folder / "study.yaml").questions is None
    facts(folder, "people_p", "people_p-s0-0123456789", EVIL[0])
    facts(folder, "people_p", "people_p-s0-older", "Of an older run?")  # which runs.json does not name
    expected = Text(EVIL[0], (EVIL[0], EVIL[1], r"a\x1b[31m\x00b\u202ec", r"\ud800"))
    assert texts(folder) == {("people_p", "people_p/split_0/001"): expected}
    assert [path.name for path in files_read(folder) if path.suffix == ".jsonl"] == ["facts.jsonl"]


def test_texts_may_be_kept_out_or_lie_elsewhere(tmp_path):
    runs = {"data": ["people_p-s0-0123456789"]}
    folder, silent = study(tmp_path / "a", runs=runs), study(tmp_path / "b", runs=runs, report_texts=False)
    facts(folder, "people_p", "people_p-s0-0123456789")
    facts(silent, "people_p", "people_p-s0-0123456789")
    assert texts(folder) and texts(study(tmp_path / "c", runs=runs), texts=folder) == texts(folder)
    for where, options in ((folder, {"texts": False}), (silent, {}), (silent, {"texts": folder})):
        assert texts(where, **options) == {}
    assert not [path for path in files_read(silent) if path.suffix == ".jsonl"]


def test_the_choices_are_those_of_the_probe(tmp_path):
    folder = study(tmp_path / "tiny", "likelihood_fresh", {"data": ["people_p-s0-0123456789"]})
    facts(folder, "people_p", "people_p-s0-0123456789")
    assert [one.choices for one in texts(folder).values()] == [("0", "1", "2", "3")]


def test_the_facts_are_those_of_the_default_variant_and_the_main_seed(tmp_path):
    """Each seed has facts of its own under the same ids, and a variant may have others."""
    specs, names = {}, {}
    for run, seed, policy in (("default-s0", 0, "drop"), ("default-s1", 1, "drop"), ("variant-s0", 0, "keep")):
        data = {"kind": "data", "seed": seed, "policy": {"few_answers": policy}, "raw": {"dataset": "people_p"}}
        names[run] = f"people_p-s{seed}-{digest(data)[:10]}"
        specs[run] = {"kind": "attack", "seed": seed, "source": {"facts": data}}
    stems = {"default": ["default-s0/original", "default-s1/original"], "x": ["variant-s0/original"]}
    variants = {name: {"evals": some, "point_choices": [], "reported": "nested"} for name, some in stems.items()}
    folder = study(tmp_path / "tiny", runs={"data": list(names.values()), "variants": variants})
    for run, spec in specs.items():
        write_json(folder / f"specs/{run}.json", spec)
        facts(folder, "people_p", names[run], f"Of {run}?")
    assert [one.question for one in texts(folder).values()] == ["Of default-s0?"]


def test_a_damaged_file_of_facts_is_named(tmp_path):
    folder = study(tmp_path / "tiny", runs={"data": ["people_p-s0-0123456789"]})
    path = folder / "data/people_p-s0-0123456789/facts.jsonl"
    facts(folder, "people_p", path.parent.name)
    path.write_text(path.read_text()[:-2])
    with pytest.raises(UserError, match=r"facts\.jsonl:1: the last line is cut off"):
        texts(folder)


def test_names_of_questions_are_text(tmp_path):
    folder = study(tmp_path / "tiny")
    row = "people_p,pretrained,miniature,0,letter_permuted,RTT,0.1,original,,{},{},1,0,1,0.9000,0.1000\n"
    (folder / "tables/questions.csv").write_text(HEAD + row.format("007", "'=x") + row.format("8", "none"))
    table = read_inputs(folder, folder / "study.yaml").questions
    assert table["id"].tolist() == ["007", "8"]
    assert table["group"].tolist() == ["=x", "none"] and table["method"].tolist() == ["", ""]
    assert table["v_split"].tolist() == ["1", "1"] and table["p_1"].tolist() == [0.9, 0.9]


def test_facts_that_a_study_retains_are_not_counted_as_forgotten(tmp_path):
    """A dataset may give facts to forget and others to retain: each has an audit, and specs say which is which."""
    source = {"dataset": "people_p", "splits": ["split_0"]}
    asked, retained = f"people_p-s0-{digest(source)[:10]}", "people_p-s0-0123456789"
    runs = {"data": [asked, retained], "variants": {"default": {"evals": ["unlearn-1", "attack-1/GD"]}}}
    folder = study(tmp_path / "s", runs=runs)
    for name, number in ((asked, 80), (retained, 50)):
        write_json(folder / "data" / name / "audit.json", {"dataset": "people_p", "facts": number})
    (folder / "specs").mkdir(exist_ok=True)
    write_json(folder / "specs/unlearn-1.json", {"seed": 0, "source": {"facts": source}})
    found = read_inputs(folder, folder / "study.yaml")
    assert counts(found.forgotten) == {"people_p": 80} and len(found.audits) == 2
    (folder / "specs/unlearn-1.json").unlink()  # nothing tells them apart, so that no number is said
    assert counts(read_inputs(folder, folder / "study.yaml").forgotten) == {}
