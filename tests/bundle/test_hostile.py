"""Hostile archives: each is refused in plain words, and nothing is written outside the folder that was named."""

import json
import stat
import struct
import zipfile
from pathlib import Path

import bundle_builder as builder
import pytest
from bundle_builder import BASE, BUNDLE, edited, index_of, pack
from rtt.bundle import contents, layout, opening
from rtt.errors import UserError


def test_the_good_bundle_opens(files, tmp_path):
    pack(tmp_path / "good.zip", files)
    opening.unpack(opening.look(tmp_path / "good.zip"), tmp_path / "out")
    for name, data in files.items():
        assert (tmp_path / "out" / name).read_bytes() == data


# --- names


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json", "results/tiny/evals/../../../evil.json", "/etc/evil.json", "results//evil.json", "..", "",
        "~/x", "C:\\evil.json", "results\\tiny\\evil.json", ".bashrc", "results/tiny/.hidden.json", "results/tiny/-rf",
        "results/tiny/a\x00b.json", "results/tiny/a b.json", "results/tiny/a\nb.json", "results/tiny/é.json", "a" * 300,
        "results/tiny/evals/" + "a/" * 9 + "b", "results/tiny/evals/",
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(UserError, match="is refused: expected a relative path") as caught:
        layout.check_name(name, "x.zip")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["../evil.json", "/etc/evil.json", "results\\tiny\\evil.json"])
@pytest.mark.parametrize("listed", [True, False])
def test_names_are_checked_in_the_index_and_in_the_archive(files, tmp_path, refused, name, listed):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor would mend some of them
    index = index_of(files)
    if listed:
        index["files"][name] = index_of({name: b"x"})["files"][name]
    refused(pack(tmp_path / "x.zip", files, index, [(info, b"x")]), "is refused")


@pytest.mark.parametrize("name", ["evil.json", "results/other/runs.json", "results/tiny/models/x", "workflow.txt/x"])
def test_names_that_have_no_place_in_a_bundle(files, tmp_path, refused, name):
    refused(pack(tmp_path / "x.zip", files | {name: b"{}"}), "no place in a bundle")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_stands_twice(files, tmp_path, refused):
    refused(pack(tmp_path / "x.zip", files, more=[(zipfile.ZipInfo(BASE + "runs.json"), b"{}")]), "stands twice")


def test_names_that_are_one_on_some_disks(files, tmp_path, refused):
    more = {BASE + "evals/A.json": b"{}", BASE + "evals/a.json": b"{}"}
    refused(pack(tmp_path / "x.zip", files | more), "lower case")
    more = {BASE + "evals/a": b"{}", BASE + "evals/a/b": b"{}"}
    refused(pack(tmp_path / "y.zip", files | more), "below a file")


# --- links and other things that are not files


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_devices_in_an_archive(files, tmp_path, refused, kind):
    info = zipfile.ZipInfo(BASE + "evals/link.json")
    info.external_attr = (kind | 0o777) << 16
    index = index_of(files | {info.filename: b"/etc/passwd"})
    refused(pack(tmp_path / "x.zip", files, index, [(info, b"/etc/passwd")]), "link or not a plain file")


def test_a_link_in_an_unpacked_bundle(files, tmp_path, refused):
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(pack(tmp_path / "x.zip", files)) as archive:
        archive.extractall(folder)
    name = next(name for name in files if "/evals/" in name)
    (folder / name).unlink()
    (folder / name).symlink_to(tmp_path / "secret.json")
    refused(folder, "link or not a plain file")


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder."""
    opening.unpack(opening.look(BUNDLE), tmp_path / "their")
    return tmp_path / "their/results/tiny"


@pytest.mark.parametrize(
    "name", ["runs.json", "evals/*/original.json", "evals", "data/cities-*", "tables", "report.html"]
)
def test_a_link_in_a_results_folder(results, tmp_path, refused, name):
    """Bundled or rebuilt, a link would show what stands elsewhere on this machine."""
    (results / "tables").mkdir()
    (results / "tables/recovery.csv").write_text("secret\n")
    (results / "report.html").write_text("secret\n")
    place = next(results.glob(name))
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert str(place) in refused(results, "is a link")


def test_all_names_of_a_results_folder_are_checked_before_the_disk_is_asked(results, refused, monkeypatch):
    asked, real = [], contents._is_there
    monkeypatch.setattr(
        contents, "_is_there", lambda folder, name, limit: asked.append(name) or real(folder, name, 9e9)
    )
    for name in ("../../secret", "/etc/passwd", "a\x1b[31mb"):
        runs = json.loads((results / "runs.json").read_text())
        runs["manifests"] = [name]
        (results / "runs.json").write_text(json.dumps(runs))
        refused(results)
    assert set(asked) == {"runs.json"}


def test_a_folder_in_the_place_of_a_file(results, refused):
    place = next(results.glob("evals/*/original.json"))
    place.unlink()
    place.mkdir()  # a pipe is refused by the same line; otherwise this test would wait for it for ever
    refused(results, "is not a plain file")


# --- the index and what it promises


def test_files_more_or_fewer_than_listed(files, tmp_path, refused):
    extra = zipfile.ZipInfo(BASE + "evals/extra.json")
    refused(pack(tmp_path / "x.zip", files, more=[(extra, b"{}")]), "is not in bundle.json")
    index = index_of(files)
    name = next(name for name in files if "/evals/" in name)
    refused(pack(tmp_path / "y.zip", {k: v for k, v in files.items() if k != name}, index), name, "is missing")


@pytest.mark.parametrize("change", [lambda data: data[:-1] + b" ", lambda data: data[:-5], lambda data: data + b" "])
def test_contents_that_are_not_as_listed(files, tmp_path, refused, change):
    name = next(name for name in files if "/evals/" in name)
    refused(pack(tmp_path / "x.zip", files | {name: change(files[name])}, index_of(files)), name)


def test_another_bundle_than_its_name_says(files, tmp_path, refused):
    refused(pack(tmp_path / "tiny-0123456789.zip", files), "another bundle than its name says")


@pytest.mark.parametrize(
    "version, advice",
    [
        (1, "ask its author"),
        (4, "git pull"),
        (10**40, "too large"),
        ("2", "this program reads 2 and 3"),
        (2.0, ""),
        (True, ""),
    ],
)
def test_other_versions(files, tmp_path, refused, version, advice):
    refused(pack(tmp_path / "x.zip", files, index_of(files) | {"version": version}), advice)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "another"}, {"study": "../x"}, {"study": 3}, {"texts": "no"}, {"files": []}, {"files": {}},
        {"extra": 1}, {"files": {BASE + "runs.json": 3}}, {"shown": None},
    ],
)  # fmt: skip
def test_an_index_of_another_shape(files, tmp_path, refused, change):
    refused(pack(tmp_path / "x.zip", files, index_of(files) | change), "bundle.json")


@pytest.mark.parametrize(
    "key, value",
    [
        ("bytes", -1),
        ("bytes", 2**40),
        ("bytes", "1"),
        ("sha256", "x"),
        ("code", "$(x)"),
        ("step", "a/b"),
        ("plugin", 7),
    ],
)
def test_an_entry_of_another_shape(files, tmp_path, refused, key, value):
    index = index_of(files)
    index["files"][BASE + "runs.json"][key] = value
    refused(pack(tmp_path / "x.zip", files, index), "runs.json")


@pytest.mark.parametrize("shown", [True, False])
def test_figures_that_nothing_rebuilds(files, tmp_path, refused, shown):
    """A bundle that claims to have no recovery could bring figures and a report that nothing is compared with."""
    if shown:
        files = edited(files, "runs.json", builder.not_attacked)
    files = files | {BASE + "report.html": b"forged", BASE + "figures/recovery.svg": b"forged"}
    refused(pack(tmp_path / "x.zip", files, index_of(files) | {"shown": shown}), f"says shown: {str(shown).lower()}")


# --- sizes


@pytest.mark.parametrize("kind", ["runs.json", "specs", "point_choices", "data", "evals", "manifests", "tables/x.json"])
def test_files_that_are_read_whole_have_a_limit(files, tmp_path, refused, monkeypatch, kind):
    limit = 1 << 20  # a real limit is larger than what a test's archive may unpack to
    for one in layout.LIMITS:
        monkeypatch.setitem(layout.LIMITS, one, limit)
    name = next((name for name in files if name.startswith(BASE + kind)), BASE + kind)
    good = files.get(name, b"{}")
    path = pack(tmp_path / "x.zip", files | {name: good + b" " * (limit - len(good))})
    opening.look(path)
    pack(path, files | {name: good + b" " * (limit + 1 - len(good))})
    monkeypatch.setattr(opening, "extract", lambda *_: pytest.fail("it is unpacked"))
    refused(path, f"expected at most {limit}")


def test_an_index_that_is_larger_than_its_files_explain(files, tmp_path, refused):
    limit = layout.index_limit({**{name: len(data) for name, data in files.items()}, "bundle.json": 0})
    index = json.dumps(index_of(files)).encode()
    opening.look(pack(tmp_path / "x.zip", files, index + b" " * (limit - len(index))))
    refused(pack(tmp_path / "x.zip", files, index + b" " * (limit + 1 - len(index))), f"the limit for {len(files) + 1}")


def test_files_that_lie_joined_explain_an_index_too():
    """Ten seeds: 68 members, of which those that are joined hold 1320 files, and 429,043 bytes of bundle.json."""
    sizes = dict.fromkeys(map(str, range(63)), 1) | {f"results/s/{name}.joined": 2 << 20 for name in layout.JOINED}
    assert 429_043 < layout.index_limit(sizes) < 429_043 * 30
    assert layout.index_limit({"evals.joined": 1 << 40}) == (65 << 10) + layout.MAX_INDEX


def test_a_zip_bomb(files, tmp_path, refused, monkeypatch):
    bomb = {**files, BASE + "evals/bomb.json": b"[" + b"[]," * (2 << 20) + b"[]]"}
    assert "nothing was unpacked" in refused(pack(tmp_path / "x.zip", bomb), "zip bomb")
    monkeypatch.setattr(layout, "MAX_FILE", 1 << 20)
    large = {**files, BASE + "figures/large.svg": b" " * (2 << 20)}
    refused(pack(tmp_path / "y.zip", large), "expected at most 1048576")


def test_a_bomb_that_lies_about_its_size(files, tmp_path, refused):
    """Both headers say 10 bytes; the stream holds a million."""
    name = BASE + "evals/bomb.json"
    index = index_of(files | {name: b" " * 10})
    path = pack(tmp_path / "x.zip", {**files, name: b" " * 1_000_000}, index)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 1_000_000), struct.pack("<I", 10)))
    refused(path)


def test_too_many_files(files, tmp_path, refused, monkeypatch):
    monkeypatch.setattr("rtt.bundle.container.MAX_FILES", 10)
    refused(pack(tmp_path / "x.zip", files), "files")


# --- archives that are none


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(files, tmp_path, refused, method):
    info = zipfile.ZipInfo(BASE + "evals/x.json")
    info.compress_type = method
    refused(pack(tmp_path / "x.zip", files, more=[(info, b"{}")]), "packed in a way")


def test_an_encrypted_file(files, tmp_path, refused):
    path = pack(tmp_path / "x.zip", files)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "encrypted")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all", b"PK\x05\x06" + b"\0" * 18])
def test_files_that_are_no_zip(tmp_path, refused, content):
    (tmp_path / "x.zip").write_bytes(content)
    refused(tmp_path / "x.zip")


def test_nothing_there(tmp_path, refused):
    refused(tmp_path / "absent.zip", "no such file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "no results folder")


def test_an_archive_that_is_truncated_anywhere(tmp_path, refused):
    data = BUNDLE.read_bytes()
    for length in range(0, len(data), len(data) // 40):
        (tmp_path / "x.zip").write_bytes(data[:length])
        refused(tmp_path / "x.zip")
