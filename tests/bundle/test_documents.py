"""Documents in a bundle: JSON that is read strictly, shapes with limits, and what is kept although nobody knows it."""

import zipfile

import pytest
from bundle_builder import BASE, edited, pack
from rtt.bundle import documents, layout, opening
from rtt.errors import UserError

# --- strict JSON

BAD_JSON = {
    "an integer of 400 digits": b"1" + b"0" * 400, "an integer above 2^53": b"9007199254740993",
    "a float that is infinite": b"1e999", "infinity": b"-Infinity", "NaN": b"NaN", "a key twice": b'{"a": 1, "a": 2}',
    "deeper than the parser goes": b"[" * 100_000, "deeper than ours go": b"[" * 70 + b"]" * 70,
    "cut short": b'{"a": ', "empty": b"", "not UTF-8": b'"\xff"',
    "half of a surrogate pair": b'"\\ud800"', "such a key": b'{"\\ud800": 1}',
    "an escaped control character": b'"\\u001b[31m"', "such a key, short": b'{"\\b": 1}',
    "one behind a backslash": b'"\\\\\\u001b"', "a plain control character": b'"\xc2\x9b31m"',
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_JSON)
def test_json_is_read_strictly(what):
    data = b'{"good": 1, "more": ' + BAD_JSON[what] + b"}"
    with pytest.raises(UserError, match=r"^here: ") as caught:
        layout.strict_json(data, "here")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("place", ["bundle.json", "runs.json", "evals", "manifests", "data", "point_choices", "specs"])
def test_every_document_is_read_so(files, tmp_path, refused, place):
    if place == "bundle.json":
        refused(pack(tmp_path / "x.zip", files, b'{"format": "a", "format": "b"}'), "a key stands twice")
        return
    name = next(name for name in files if name.startswith(BASE + place))
    document = files[name].rstrip()[:-1] + b',"more":NaN}'
    refused(pack(tmp_path / "x.zip", files | {name: document}), name, "NaN is not a number")


# --- shapes


RTT = "evals/attack-RTT*/original"  # RTT's evaluation of the original


def names(kind: str, stem: str):
    """Let runs.json name one more evaluation or point choice."""
    return "runs.json", lambda d: d["variants"]["default"][kind].append(stem)


def first_question(document: dict, *keys: str) -> dict:
    """Return the first question of an evaluation, or what lies below some keys of it."""
    found = document["looks"][0]["questions"][0]
    for key in keys:
        found = found[key]
    return found


def in_look(**values):
    """Change the first look of RTT's evaluation of the original."""
    return RTT, lambda d: d["looks"][0].update(values)


def in_question(**values):
    """Change the first question of that look."""
    return RTT, lambda d: first_question(d).update(values)


def in_labels(**values):
    """Change the labels of that evaluation."""
    return RTT, lambda d: d["labels"].update(values)


DOCUMENTS = {
    "runs.json names a file outside": names("evals", "../../../etc/passwd"),
    "runs.json names an absolute path": names("point_choices", "/etc/passwd"),
    "runs.json names what is not there": names("evals", "other"),
    "runs.json names data outside": ("runs.json", lambda d: d["data"].append("../x")),
    "runs.json of another study": ("runs.json", lambda d: d["study"].update(study="other")),
    "runs.json without variants": ("runs.json", lambda d: d.pop("variants")),
    "runs.json is a list": ("runs.json", lambda d: [d]),
    "variants as a list": ("runs.json", lambda d: d["study"].update(variants=["x"])),
    "a formula as a variant": ("runs.json", lambda d: d["variants"].update({"=1": d["variants"]["default"]})),
    "an evaluation of version 1": (RTT, lambda d: d.update(schema_version=1)),
    "an evaluation of an unknown kind": (RTT, lambda d: d.update(kind="rtt")),
    "no looks": (RTT, lambda d: d.pop("looks")),
    "a seed too large": in_labels(seed=2**40),
    "a dataset that is a list": in_labels(dataset=["x"]),
    "a formula as a dataset": in_labels(dataset="=HYPERLINK(1)"),
    "markup as an arm": in_labels(arm="<b>"),
    "a formula as an attack": in_labels(attack="=1"),
    "markup as a look's attack": in_look(attack="<b>"),
    "a setting that is a text": in_look(setting="epoch=1"),
    "a setting with a list in it": in_look(setting={"lr": [1]}),
    "a number too large in a setting": in_look(setting={"lr": 1e300}),
    "a formula as a setting's key": in_look(setting={"=1": 1}),
    "a formula as a setting's value": in_look(setting={"layer": "=1"}),
    "a repeat below 0": in_look(repeat=-1),
    "a formula as a V split": in_look(v_split="+1"),
    "a step that is a text": ("evals/unlearn", lambda d: d["looks"][0].update(step="1")),
    "a formula as a split": in_question(split="=1+1"),
    "a newline in a question's name": in_question(id="a\nb"),
    "a group that is a number": in_question(group=3),
    "a negative answer": in_question(answer=-1),
    "a score that is a text": in_question(probes={"letter": {"scores": ["1"]}}),
    "a known probe without scores": in_question(probes={"letter": {}}),
    "a formula as a run": ("evals/unlearn", lambda d: d.update(run_id="=1")),
    "a point choice without labels": ("point_choices", lambda d: d.pop("labels")),
    "a newline in a model": ("point_choices", lambda d: d["labels"].update(model="a\nb")),
    "a tab as a method": ("point_choices", lambda d: d["labels"].update(method="\t")),
    "a budget that is no number": ("point_choices", lambda d: d["selected"].update(nan=None)),
    "a chosen point without a step": ("point_choices", lambda d: d["selected"].update({"1.0": {"run": "a"}})),
    "an audit's counts as a text": ("data", lambda d: d.update(defects="<b>")),
    "an audit's details as numbers": ("data", lambda d: d.update(details=[1])),
    "seconds beyond all time": ("manifests", lambda d: d.update(wall_seconds=1e300)),
    "packages as a list": ("manifests", lambda d: d.update(packages=["torch"])),
    "a time that is none": ("manifests", lambda d: d.update(ended="yesterday")),
    "a time out of range": ("manifests", lambda d: d.update(ended="0001-01-01T00:00:00+12:00")),
    "more keys than any study has": ("manifests", lambda d: d.update(packages={str(i): "1" for i in range(10_001)})),
}  # fmt: skip


@pytest.mark.parametrize("what", DOCUMENTS)
def test_documents_of_another_shape_are_refused(files, tmp_path, refused, what):
    name, change = DOCUMENTS[what]
    refused(pack(tmp_path / "x.zip", edited(files, name, change)), name.split("*")[0])


@pytest.mark.parametrize(
    "data", [b"study: \xff\n", b"study: \x1b[31m\n", "study: \x9b\n".encode(), b"#" * (1 << 20) + b"\n"]
)
def test_a_study_file_that_is_none(files, tmp_path, refused, data):
    refused(pack(tmp_path / "x.zip", files | {BASE + "study.yaml": data}), "study.yaml")


def test_of_many_mistakes_only_the_first_is_kept():
    """pydantic would hold a million messages about a million wrong items."""
    labels = {"dataset": "a", "arm": "a", "model": "a", "seed": 1, "target": "original"}
    question = {"id": "a", "split": "a", "group": "a", "role": "V", "answer": 0}
    for questions in ([[]] * 1000, [question | {"probes": {"letter": {"scores": ["x"] * 20_000}}}]):
        look = {"setting": {}, "repeat": 0, "questions": questions}
        document = {"schema_version": 2, "kind": "original", "run_id": "a", "labels": labels, "status": "ok"}
        with pytest.raises(documents.ValidationError) as caught:
            documents.Evaluation.model_validate(document | {"looks": [look]})
        assert caught.value.error_count() == 1


# --- what is no mistake


def test_names_that_a_study_may_choose_are_accepted(files, tmp_path):
    labels = {"dataset": "years_2", "model": "smollm2-135m.instruct_b", "method": "SimNPO+v2.1-b"}
    for part in ("evals/unlearn", "evals/attack-RTT*/GD-b100"):
        files = edited(files, part, lambda d: d["labels"].update(labels))
    split = "mmlu_social sciences (é)"
    files = edited(files, *in_question(split=split, id=f"a/{split}"))
    setting = {"bits": 4, "group_size": None, "place": "mlp", "rate": 1e-3, "on": True}
    files = edited(files, *in_look(setting=setting))
    files = edited(files, "manifests", lambda d: d.update(note="two\nlines\tand a backslash \\u001b \\r \\"))
    opening.unpack(opening.look(pack(tmp_path / "x.zip", files)), tmp_path / "out")


def test_unknown_probes_and_keys_are_kept_byte_for_byte(files, tmp_path):
    more = {"text": "A, since 1905", "scores": [1], "inner": {"deep": [None, True]}}
    for name in (RTT, "evals/unlearn", "runs.json", "point_choices", "manifests", "data", "specs"):
        files = edited(files, name, lambda d: d.update(novel=more))
    files = edited(files, *in_look(novel=more))
    files = edited(files, *in_labels(novel=more))
    for keys in (("probes",), ("probes", "letter")):
        files = edited(files, RTT, lambda d, keys=keys: first_question(d, *keys).update(novel=more))
    path = pack(tmp_path / "x.zip", files)
    opening.unpack(opening.look(path), tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        for name in files:
            assert (tmp_path / "out" / name).read_bytes() == archive.read(name)
