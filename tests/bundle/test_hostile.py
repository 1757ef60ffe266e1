"""Untrusted bundles: each is refused in plain words, and nothing is written outside the folder that was named."""

import json
import stat
import struct
import zipfile
from pathlib import Path

import bundle_builder as builder
import pytest
from bundle_builder import BASE, OLD, edited, index_of, pack, tree
from rtt.bundle import contents, documents, layout, opening
from rtt.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The sources of a good bundle."""
    return builder.of_version_2(tmp_path_factory.mktemp("good"))


@pytest.fixture
def refused(tmp_path):
    """Open a bundle that must be refused; nothing may change, and the folder for its files stays empty."""

    def call(path: Path, *words: str) -> str:
        out = tmp_path / "deep/er/out"
        out.mkdir(parents=True, exist_ok=True)
        before = tree(tmp_path)
        with pytest.raises(UserError) as caught:
            opening.unpack(opening.look(path), out)
        assert tree(tmp_path) == before and not list(out.iterdir())
        message = str(caught.value)
        assert str(path) in message or "results/tiny" in message or "runs.json" in message, message
        assert message.isprintable(), message
        for word in words:
            assert word in message, message
        return message

    return call


def test_the_good_bundle_opens(files, tmp_path):
    pack(tmp_path / "good.zip", files)
    opening.unpack(opening.look(tmp_path / "good.zip"), tmp_path / "out")
    for name, data in files.items():
        assert (tmp_path / "out" / name).read_bytes() == data


NAMES = [
    "../evil.json", "results/tiny/evals/../../../evil.json", "/etc/evil.json", "results//evil.json", "C:\\evil.json",
    "results\\tiny\\evil.json", "..", ".bashrc", "results/tiny/evals/.hidden.json", "results/tiny/evals/a\x00b.json",
    "results/tiny/evals/a b.json", "results/tiny/evals/a\nb.json", "results/tiny/evals/é.json", "a" * 300,
    "results/tiny/evals/" + "a/" * 9 + "b", "results/tiny/evals/", "", "~/x", "results/tiny/evals/-rf",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("listed", [True, False])
def test_names_that_lead_elsewhere(files, tmp_path, refused, name, listed):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor mends some of them
    index = index_of(files)
    if listed:
        index["files"][name] = index_of({name: b"x"})["files"][name]
    refused(pack(tmp_path / "x.zip", files, index, [(info, b"x")]))


@pytest.mark.parametrize("name", ["evil.json", "results/other/runs.json", "results/tiny/models/x", "workflow.txt/x"])
def test_names_that_have_no_place(files, tmp_path, refused, name):
    refused(pack(tmp_path / "x.zip", files | {name: b"{}"}), "no place in a bundle")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices(files, tmp_path, refused, kind):
    info = zipfile.ZipInfo(BASE + "evals/link.json")
    info.external_attr = (kind | 0o777) << 16
    index = index_of(files | {info.filename: b"/etc/passwd"})
    refused(pack(tmp_path / "x.zip", files, index, [(info, b"/etc/passwd")]), "link or no plain file")


def test_a_link_in_an_unpacked_bundle(files, tmp_path, refused):
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(pack(tmp_path / "x.zip", files)) as archive:
        archive.extractall(folder)
    name = next(name for name in files if "/evals/" in name)
    (folder / name).unlink()
    (folder / name).symlink_to(secret)
    refused(folder, "link or no plain file")


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder."""
    opening.unpack(opening.look(OLD), tmp_path / "their")
    return tmp_path / "their/results/tiny"


@pytest.mark.parametrize(
    "name", ["runs.json", "study.yaml", "evals/rtt-*", "evals", "data", "data/cities-*", "manifests/*", "point_choices/*",
             "tables", "report.html"],
)  # fmt: skip
def test_a_link_in_a_results_folder(results, tmp_path, refused, name):
    """To a good file, or a whole folder: bundled or rebuilt, it would show what stands elsewhere on this machine."""
    (results / "tables").mkdir()
    (results / "tables/recovery.csv").write_text("secret\n")
    (results / "report.html").write_text("secret\n")
    place = next(results.glob(name))
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    message = refused(results, "is a link")
    assert str(place) in message


def test_a_results_folder_s_names_are_checked_before_the_disk_is_asked(results, refused, monkeypatch):
    asked, real = [], contents._is_there
    monkeypatch.setattr(
        contents, "_is_there", lambda folder, name, limit: asked.append(name) or real(folder, name, 9e9)
    )
    for name in ("../../secret", "/etc/passwd", "a\x1b[31mb"):
        plan = json.loads((results / "runs.json").read_text())
        plan["manifests"] = [name]
        (results / "runs.json").write_text(json.dumps(plan))
        refused(results)
    assert set(asked) == {"runs.json"}


def test_other_things_than_files_in_a_results_folder(results, refused):
    place = next(results.glob("evals/rtt-*"))
    place.unlink()
    place.mkdir()  # a pipe is refused by the same line; were it not, this test would wait for it for ever
    refused(results, "is no plain file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_twice(files, tmp_path, refused):
    name = BASE + "runs.json"
    refused(pack(tmp_path / "x.zip", files, more=[(zipfile.ZipInfo(name), b"{}")]), "stands twice")


def test_names_that_are_one_on_some_disks(files, tmp_path, refused):
    refused(pack(tmp_path / "x.zip", files | {BASE + "PLAN.json": b"{}"}))
    refused(
        pack(tmp_path / "y.zip", files | {BASE + "evals/A.json": b"{}", BASE + "evals/a.json": b"{}"}), "lower case"
    )
    refused(pack(tmp_path / "z.zip", files | {BASE + "evals/a": b"{}", BASE + "evals/a/b": b"{}"}), "below a file")


def test_files_more_or_fewer_than_listed(files, tmp_path, refused):
    extra = zipfile.ZipInfo(BASE + "evals/extra.json")
    refused(pack(tmp_path / "x.zip", files, more=[(extra, b"{}")]), "is not in bundle.json")
    index = index_of(files)
    name = next(name for name in files if "/evals/" in name)
    refused(pack(tmp_path / "y.zip", {k: v for k, v in files.items() if k != name}, index), name, "is missing")


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b" ", lambda data: data[:-5], lambda data: data + b" "])
def test_contents_that_are_not_as_listed(files, tmp_path, refused, change):
    index = index_of(files)
    for name in (BASE + "runs.json", next(name for name in files if "/evals/" in name)):
        refused(pack(tmp_path / "x.zip", files | {name: change(files[name])}, index), name)


def test_another_bundle_than_its_name_says(files, tmp_path, refused):
    refused(pack(tmp_path / "tiny-0123456789.zip", files), "another bundle than its name says")


@pytest.mark.parametrize("version", [0, 3, 99, -1, "2", 2.0, True, None, 10**40, [2]])
def test_unknown_versions(files, tmp_path, refused, version):
    refused(pack(tmp_path / "x.zip", files, index_of(files) | {"version": version}))


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"}, {"study": "../x"}, {"study": "Tiny"}, {"study": 3}, {"texts": "no"}, {"files": []},
        {"files": {}}, {"extra": 1}, {"files": {BASE + "runs.json": 3}}, {"shown": None},
    ],
)  # fmt: skip
def test_an_index_of_another_shape(files, tmp_path, refused, change):
    refused(pack(tmp_path / "x.zip", files, index_of(files) | change), "bundle.json")


@pytest.mark.parametrize(
    "key, value",
    [("bytes", -1), ("bytes", 2**40), ("bytes", "1"), ("sha256", "x"), ("code", "$(x)"), ("step", "a/b"), ("step", 7)],
)
def test_an_entry_of_another_shape(files, tmp_path, refused, key, value):
    index = index_of(files)
    index["files"][BASE + "runs.json"][key] = value
    refused(pack(tmp_path / "x.zip", files, index), "runs.json")


BAD_JSON = {
    "a number of 400 digits": b"1" + b"0" * 400, "a number of 5000 digits": b"1" * 5000,
    "2^53 + 1": b"9007199254740993", "an infinite float": b"1e999", "infinity": b"-Infinity", "NaN": b"NaN",
    "a key twice": b'{"a": 1, "a": 2}', "nested deep": b"[" * 100_000, "cut short": b'{"a": ',
    "nested too deep for our own code": b"[" * 70 + b"]" * 70, "half of a character": b'"\\ud800"',
    "half of a character as a key": b'{"\\ud800": 1}', "a control character": b'"\\u001b[31m"', "NUL": b'"\\u0000"',
    "a control character as a key": b'{"\\b": 1}', "of the second block": b'"\xc2\x9b31m"', "DEL": b'"\x7f"',
    "behind a backslash": b'"\\\\\\u001b"', "a carriage return": b'"\\r"',
    "no UTF-8": b'"\xff"', "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_JSON)
@pytest.mark.parametrize("place", ["index", "runs.json", "evals", "manifests", "data", "point_choices", "specs"])
def test_json_that_is_none(files, tmp_path, refused, what, place):
    bad = BAD_JSON[what]
    if place == "index":
        refused(pack(tmp_path / "x.zip", files, bad if what != "a key twice" else b'{"format": "a", "format": "b"}'))
        return
    name = next(name for name in files if name.startswith(BASE + place))
    document = files[name].rstrip()[:-1] + b',"more":' + bad + b"}"  # a good document with the bad thing in it
    refused(pack(tmp_path / "x.zip", files | {name: document}))


def names(kind: str, stem: str):
    """The plan names one more evaluation or point_choice."""
    return "runs.json", lambda d: d["variants"]["default"][kind].append(stem)


DOCUMENTS = {
    "plan names a file outside": names("evals", "../../../etc/passwd"),
    "plan names an absolute path": names("point_choices", "/etc/passwd"),
    "plan names what is not there": names("evals", "other"),
    "plan names data outside": ("runs.json", lambda d: d["data"].append("../x")),
    "plan of another study": ("runs.json", lambda d: d["study"].update(study="other")),
    "plan without variants": ("runs.json", lambda d: d.pop("variants")),
    "plan is a list": ("runs.json", lambda d: [d]),
    "a seed too large": ("evals/rtt", lambda d: d["labels"].update(seed=2**40)),
    "an epoch too large": ("evals/rtt", lambda d: d["results"][0].update(epoch=2**50)),
    "a learning rate too large": ("evals/rtt", lambda d: d["results"][0].update(lr=1e300)),
    "a step that is a text": ("evals/unlearn", lambda d: d["results"][0].update(step="1")),
    "a dataset that is a list": ("evals/rtt", lambda d: d["labels"].update(dataset=["x"])),
    "an audit's counts as a text": ("data", lambda d: d.update(defects="<b>")),
    "an audit's details as numbers": ("data", lambda d: d.update(details=[1])),
    "seconds as a text": ("manifests", lambda d: d.update(cpu_seconds="1e9")),
    "seconds beyond all time": ("manifests", lambda d: d.update(wall_seconds=1e300)),
    "tokens as a text": ("manifests", lambda d: d.update(tokens="many")),
    "variants as a list": ("runs.json", lambda d: d["study"].update(variants=["x"])),
    "a variant as a text": ("runs.json", lambda d: d["study"].update(variants={"x": "y"})),
    "packages as a list": ("manifests", lambda d: d.update(packages=["torch"])),
    "a point choice without labels": ("point_choices", lambda d: d.pop("labels")),
    "a formula as a dataset": ("evals/rtt", lambda d: d["labels"].update(dataset="=HYPERLINK(1)")),
    "markup as an arm": ("evals/rtt", lambda d: d["labels"].update(arm="<b>")),
    "a newline in a model": ("point_choices", lambda d: d["labels"].update(model="a\nb")),
    "a tab as a method": ("point_choices", lambda d: d["labels"].update(method="\t")),
    "a formula as a split": ("evals/rtt", lambda d: d["results"][0]["questions"][0].update(split="=1+1")),
    "a newline in a question's name": ("evals/rtt", lambda d: d["results"][0]["questions"][0].update(id="a\nb")),
    "a formula as a run": ("evals/unlearn", lambda d: d.update(run_id="=1")),
    "a formula as a variant": ("runs.json", lambda d: d["variants"].update({"=1": d["variants"]["default"]})),
    "a time that is none": ("manifests", lambda d: d.update(ended="yesterday")),
    "a time out of range": ("manifests", lambda d: d.update(ended="0001-01-01T00:00:00+12:00")),
    "more keys than any study has": ("manifests", lambda d: d.update(packages={str(i): "1" for i in range(10_001)})),
}  # fmt: skip


@pytest.mark.parametrize("what", DOCUMENTS)
def test_documents_of_another_shape(files, tmp_path, refused, what):
    name, change = DOCUMENTS[what]
    refused(pack(tmp_path / "x.zip", edited(files, name, change)))


def test_names_of_ours_are_no_mistake(files, tmp_path):
    """What settings, model files and own datasets allow is not refused."""
    labels = {"dataset": "years_2", "model": "smollm2-135m.instruct_b", "method": "SimNPO+v2.1-b"}
    for part in ("unlearn-", "rtt-pretrained-s0-d95035dda9.GD"):
        files = edited(files, f"evals/{part}", lambda d: d["labels"].update(labels))
    split = "mmlu_social sciences (é)"
    files = edited(
        files, "evals/unlearn", lambda d: d["results"][0]["questions"][0].update(split=split, id=f"a/{split}")
    )
    files = edited(files, "manifests", lambda d: d.update(note="two\nlines\tand a backslash \\u001b \\r \\"))
    opening.unpack(opening.look(pack(tmp_path / "x.zip", files)), tmp_path / "out")


OF_VERSION_1 = {
    "no probes": ("point_choices", lambda d: d.update(probes=[])),
    "probes as a number": ("point_choices", lambda d: d.update(probes=3)),
    "points as texts": ("point_choices", lambda d: d.update(points=["x"])),
    "half of a character": ("point_choices", lambda d: d.update(rule="\ud800")),
    "half of a character in the plan": ("runs.json", lambda d: d.update(note="\ud800")),
    "a point choice outside": ("runs.json", lambda d: d.update(point_choices=["../../x"])),
    "a point choice as a number": ("runs.json", lambda d: d.update(point_choices=[3])),
    "no labels": ("evals/unlearn", lambda d: d.pop("labels")),
}


@pytest.mark.parametrize("what", OF_VERSION_1)
def test_documents_of_version_1(tmp_path, refused, what):
    files = edited(builder.of_version_1(), *OF_VERSION_1[what])
    refused(pack(tmp_path / "x.zip", files, index_of(files) | {"version": 1}))


@pytest.mark.parametrize(
    "data", [b"study: \xff\n", b"study: \x1b[31m\n", "study: \x9b\n".encode(), b"#" * (1 << 20) + b"\n"]
)
def test_a_study_file_that_is_none(files, tmp_path, refused, data):
    refused(pack(tmp_path / "x.zip", files | {BASE + "study.yaml": data}), "study.yaml")


@pytest.mark.parametrize("shown", [True, False])
def test_figures_that_nothing_rebuilds(files, tmp_path, refused, shown):
    """Said to have no recovery, a bundle's own figures and report would be compared with nothing."""
    if shown:
        files = edited(files, "runs.json", builder.not_attacked)
    files = files | {BASE + "report.html": b"forged", BASE + "figures/recovery.svg": b"forged"}
    refused(pack(tmp_path / "x.zip", files, index_of(files) | {"shown": shown}), f"says shown: {str(shown).lower()}")


@pytest.mark.parametrize("kind", ["runs.json", "specs", "point_choices", "data", "evals", "manifests", "tables/x.json"])
def test_what_is_read_whole_has_a_limit(files, tmp_path, refused, monkeypatch, kind):
    limit = 1 << 20  # a real one is larger than a test's archive may unpack to
    for one in layout.LIMITS:
        monkeypatch.setitem(layout.LIMITS, one, limit)
    name = next((name for name in files if name.startswith(BASE + kind)), BASE + kind)
    good = files.get(name, b"{}")
    path = pack(tmp_path / "x.zip", files | {name: good + b" " * (limit - len(good))})
    opening.look(path)
    pack(path, files | {name: good + b" " * (limit + 1 - len(good))})
    monkeypatch.setattr(opening, "extract", lambda *_: pytest.fail("it is unpacked"))
    refused(path, f"expected at most {limit}")


def test_an_index_larger_than_its_files_explain(files, tmp_path, refused):
    limit = layout.index_limit(len(files) + 1)
    index = json.dumps(index_of(files)).encode()
    opening.look(pack(tmp_path / "x.zip", files, index + b" " * (limit - len(index))))
    refused(pack(tmp_path / "x.zip", files, index + b" " * (limit + 1 - len(index))), f"the limit for {len(files) + 1}")


def test_of_many_mistakes_the_first_is_kept():
    """pydantic would hold a million messages about a million wrong items."""
    labels = {"dataset": "a", "arm": "a", "model": "a", "seed": 1}
    question = {"id": "a", "split": "a", "role": "V", "answer": 0}
    for questions in ([[]] * 1000, [question | {"scores": {str(i): 1 for i in range(20_000)}}]):
        document = {
            "run_id": "a",
            "labels": labels,
            "results": [{"lr": 0, "epoch": 0, "step": 0, "questions": questions}],
        }
        with pytest.raises(documents.ValidationError) as caught:
            documents.Evaluation.model_validate(document)
        assert caught.value.error_count() == 1


def test_a_zip_bomb(files, tmp_path, refused, monkeypatch):
    bomb = {**files, BASE + "evals/bomb.json": b"[" + b"[]," * (2 << 20) + b"[]]"}
    message = refused(pack(tmp_path / "x.zip", bomb), "zip bomb")
    assert "nothing was unpacked" in message
    monkeypatch.setattr(layout, "MAX_FILE", 1 << 20)
    refused(
        pack(tmp_path / "y.zip", {**files, BASE + "figures/large.svg": b" " * (2 << 20)}), "expected at most 1048576"
    )


def test_a_bomb_that_lies_about_its_size(files, tmp_path, refused):
    """Both headers say 10 bytes; the stream holds a million."""
    name = BASE + "evals/bomb.json"
    index = index_of(files | {name: b" " * 10})
    path = pack(tmp_path / "x.zip", {**files, name: b" " * 1_000_000}, index)
    data = path.read_bytes().replace(struct.pack("<I", 1_000_000), struct.pack("<I", 10))
    path.write_bytes(data)
    refused(path)


def test_too_many_files(files, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("rtt.bundle.container.MAX_FILES", 10)
    refused(pack(tmp_path / "x.zip", files), "files")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(files, tmp_path, refused, method):
    info = zipfile.ZipInfo(BASE + "evals/x.json")
    info.compress_type = method
    refused(pack(tmp_path / "x.zip", files, more=[(info, b"{}")]), "packed in a way")


def test_an_encrypted_file(files, tmp_path, refused):
    path = pack(tmp_path / "x.zip", files)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_zip(tmp_path, refused, content):
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip")


def test_what_is_not_there(tmp_path, refused):
    refused(tmp_path / "absent.zip", "no such file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no results folder")


def test_truncated_anywhere(tmp_path, refused):
    data = OLD.read_bytes()
    for length in range(0, len(data), len(data) // 40):
        (tmp_path / "x.zip").write_bytes(data[:length])
        refused(tmp_path / "x.zip")
