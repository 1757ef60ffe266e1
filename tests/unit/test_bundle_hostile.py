"""Untrusted bundles: each is refused in plain words, and nothing is written outside the folder that was named."""

import json
import stat
import string
import struct
import zipfile
from pathlib import Path

import bundle_builder as builder
import pytest
from bundle_builder import BASE, OLD, edited, index_of, pack, silent, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rtt import report
from rtt.bundle import layout, opening, rebuild
from rtt.errors import UserError


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The sources of a good bundle."""
    root = tmp_path_factory.mktemp("good")
    opening.unpack(opening.look(OLD), root)
    return builder.sources(root / "results/tiny")


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
        assert str(path) in message or "results/tiny" in message or "plan.json" in message, message
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


@pytest.mark.parametrize("name", ["evil.json", "results/other/plan.json", "results/tiny/models/x", "workflow.txt/x"])
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


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_stand_twice(files, tmp_path, refused):
    name = BASE + "plan.json"
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
    for name in (BASE + "plan.json", next(name for name in files if "/evals/" in name)):
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
        {"files": {}}, {"extra": 1}, {"files": {BASE + "plan.json": 3}}, {"shown": None},
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
    index["files"][BASE + "plan.json"][key] = value
    refused(pack(tmp_path / "x.zip", files, index), "plan.json")


BAD_JSON = {
    "a number of 400 digits": b"1" + b"0" * 400, "a number of 5000 digits": b"1" * 5000,
    "2^53 + 1": b"9007199254740993", "an infinite float": b"1e999", "infinity": b"-Infinity", "NaN": b"NaN",
    "a key twice": b'{"a": 1, "a": 2}', "nested deep": b"[" * 100_000, "cut short": b'{"a": ',
    "no UTF-8": b'"\xff"', "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_JSON)
@pytest.mark.parametrize("place", ["index", "plan.json", "evals", "manifests", "data", "selections"])
def test_json_that_is_none(files, tmp_path, refused, what, place):
    bad = BAD_JSON[what]
    if place == "index":
        refused(pack(tmp_path / "x.zip", files, bad if what != "a key twice" else b'{"format": "a", "format": "b"}'))
        return
    name = next(name for name in files if name.startswith(BASE + place))
    document = files[name].rstrip()[:-1] + b',"more":' + bad + b"}"  # a good document with the bad thing in it
    refused(pack(tmp_path / "x.zip", files | {name: document}))


def names(kind: str, stem: str):
    """The plan names one more evaluation or selection."""
    return "plan.json", lambda d: d["variants"]["default"][kind].append(stem)


DOCUMENTS = {
    "plan names a file outside": names("evals", "../../../etc/passwd"),
    "plan names an absolute path": names("selections", "/etc/passwd"),
    "plan names what is not there": names("evals", "other"),
    "plan names data outside": ("plan.json", lambda d: d["data"].append("../x")),
    "plan of another study": ("plan.json", lambda d: d["study"].update(study="other")),
    "plan without variants": ("plan.json", lambda d: d.pop("variants")),
    "plan is a list": ("plan.json", lambda d: [d]),
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
    "variants as a list": ("plan.json", lambda d: d["study"].update(variants=["x"])),
    "a variant as a text": ("plan.json", lambda d: d["study"].update(variants={"x": "y"})),
    "packages as a list": ("manifests", lambda d: d.update(packages=["torch"])),
    "a selection without labels": ("selections", lambda d: d.pop("labels")),
    "a lone surrogate": ("manifests", lambda d: d.update(stage="\ud800")),
}  # fmt: skip


@pytest.mark.parametrize("what", DOCUMENTS)
def test_documents_of_another_shape(files, tmp_path, refused, what):
    name, change = DOCUMENTS[what]
    refused(pack(tmp_path / "x.zip", edited(files, name, change)))


def test_a_zip_bomb(files, tmp_path, refused, monkeypatch):
    bomb = {**files, BASE + "evals/bomb.json": b" " * (80 << 20)}
    message = refused(pack(tmp_path / "x.zip", bomb), "zip bomb")
    assert "nothing was unpacked" in message
    monkeypatch.setattr(layout, "MAX_FILE", 1 << 20)
    refused(pack(tmp_path / "y.zip", {**files, BASE + "evals/large.json": b" " * (2 << 20)}))


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


# --- fuzzed


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=4
    )
)
def test_garbled_archives_are_refused_or_the_same(tmp_path_factory, spoils):
    """Bytes replaced, inserted and deleted: what still opens is what was packed."""
    data = OLD.read_bytes()
    for where, new, dropped in spoils:
        at = int(where * len(data))
        data = data[:at] + new + data[at + dropped :]
    folder = tmp_path_factory.mktemp("garbled")
    (folder / "x.zip").write_bytes(data)
    try:
        with silent():
            opening.unpack(opening.look(folder / "x.zip"), folder / "out/put")
    except UserError:
        left = {name for name in tree(folder) if not name.startswith("out/put/")}
        assert left == {"x.zip"} and not tree(folder / "out")
        return
    with zipfile.ZipFile(OLD) as good:
        for name in good.namelist():
            where = folder / "out/put/given" / name
            if where.exists():
                assert where.read_bytes() == good.read(name)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(alphabet=string.ascii_letters + "./\\:~ -_\0\n" + "é", max_size=40))
def test_any_name_stays_inside(name):
    try:
        layout.check_name(name, "x")
        layout.check_place(name, "tiny", "x")
    except UserError:
        return
    assert (Path("/base") / name).resolve().is_relative_to("/base")


SCRIPT = "<script>alert(1)</script>"
HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20),
    st.sampled_from([SCRIPT, "../../x", "-->", "]]>", "=1+1", 2**31, -1, 1e15, [], {}, [[]], "$\\frac$"]),
)  # fmt: skip


def places(value, path=()):
    """Every place in a JSON document, as a list of keys; of long lists the first two items."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_document_with_anything_in_it_is_refused_or_can_be_drawn(files, tmp_path_factory, data):
    """No error but a UserError on the way from the archive to the report, and no markup of theirs in the page."""
    name = data.draw(
        st.sampled_from(sorted(name for name in files if "/specs/" not in name and name.endswith(".json")))
    )
    document = json.loads(files[name])
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from([path for path in places(document) if path]))
        inner = document
        for key in path:
            inner = inner[key]
        inner[last] = data.draw(HOSTILE)
    folder = tmp_path_factory.mktemp("document")
    pack(folder / "x.zip", files | {name: json.dumps(document).encode()})
    try:
        with silent():
            opening.unpack(opening.look(folder / "x.zip"), folder / "out")
            rebuild.make_tables(folder / "out/results/tiny")
            page = report.page(folder / "out/results/tiny", folder / "out/results/tiny/study.yaml")
    except UserError:
        return
    assert SCRIPT not in page
