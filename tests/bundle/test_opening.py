"""Opening bundles: downloads, full disks, limits, what a results folder is known by, what commands say of them."""

import errno
import hashlib
import os
import shutil
import threading
import zipfile
from pathlib import Path

import bundle_builder as builder
import pytest
from bundle_builder import BASE, edited, index_of, pack, silent
from file_server import Server, download_port
from rtt.__main__ import main
from rtt.bundle import container, contents, layout, opening, rebuild
from rtt.bundle.layout import INDEX
from rtt.errors import UserError
from rtt.fetch import download
from rtt.files import canonical_json
from rtt.planner import costs
from rtt.study.expand import Runs
from rtt.study.load import load_study, to_yaml


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """The sources of a good bundle."""
    return builder.of_version_2(tmp_path_factory.mktemp("good"))


@pytest.fixture
def results(files, tmp_path) -> Path:
    """A results folder of them."""
    for name, data in files.items():
        (tmp_path / "their" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "their" / name).write_bytes(data)
    return tmp_path / "their/results/tiny"


# --- downloads


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    running = Server()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def test_a_bundle_is_downloaded_once(files, tmp_path, server):
    data = pack(tmp_path / "tiny.zip", files).read_bytes()
    server.content["/some/tiny.zip?download=1"] = data
    for _ in range(2):
        path = opening.local(f"{server.url}/some/tiny.zip?download=1", tmp_path / "downloads")
        assert path.read_bytes() == data and path.name == "tiny.zip"
    assert len(server.asked) == 1


def test_what_is_too_large_is_not_downloaded(files, tmp_path, server, monkeypatch):
    data = pack(tmp_path / "tiny.zip", files).read_bytes()
    monkeypatch.setattr(opening, "MAX_DOWNLOAD", len(data) - 1)
    for name, faults in (("/announced.zip", []), ("/endless.zip", ["no length"])):
        server.content[name], server.faults[name] = data, faults
        with pytest.raises(UserError, match=r"larger than .* nothing was kept"):
            opening.local(f"{server.url}{name}", tmp_path / "downloads")
    assert not list((tmp_path / "downloads").iterdir())


def test_a_page_in_the_place_of_a_bundle_is_not_kept(files, tmp_path, server):
    """A server that says "log in" says it with status 200; the next try must ask it again."""
    url, downloads = f"{server.url}/b.zip", tmp_path / "downloads"
    server.content["/b.zip"] = b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(UserError, match=r"what came: not a whole zip.*nothing was kept.*name its path") as caught:
        opening.local(url, downloads)
    assert str(caught.value).startswith(url) and ".part-" not in str(caught.value) and not list(downloads.iterdir())
    server.content["/b.zip"] = pack(tmp_path / "x.zip", files).read_bytes()
    assert opening.look(opening.local(url, downloads)).index.study == "tiny"
    assert server.asked == ["/b.zip", "/b.zip"]


def test_another_bundle_than_the_url_names_is_not_kept(files, tmp_path, server):
    server.content["/tiny-0123456789.zip"] = pack(tmp_path / "x.zip", files).read_bytes()
    with pytest.raises(UserError, match=r"another bundle than its name says.*nothing was kept"):
        opening.local(f"{server.url}/tiny-0123456789.zip", tmp_path / "downloads")
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize("fault, words", [(403, "refuses access"), (500, "4 times"), (None, "without a network")])
def test_what_cannot_be_downloaded(tmp_path, server, fault, words):
    """A bundle has no mirror: it is to be downloaded by hand."""
    server.faults["/b.zip"] = [fault] * 9
    port = server.server_port if fault else download_port()
    with pytest.raises(UserError, match=rf"{words}.*by hand and name its path: artifacts=") as caught:
        opening.local(f"http://127.0.0.1:{port}/b.zip", tmp_path / "downloads")
    assert "mirror" not in str(caught.value)


@pytest.mark.parametrize(
    "place, words",
    [
        ("ftp://127.0.0.1/b.zip", "which is not followed"),
        ("file:///etc/passwd", "HTTP 302 .* not allowed"),
        ("http://[::1/b.zip", "not a URL"),
        ("http://127.0.0.1:x/", "not a URL"),
    ],
)
def test_a_server_leads_to_the_web_alone(tmp_path, server, monkeypatch, place, words):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", answer)
    with pytest.raises(UserError, match=rf"{server.url}.*{words}"):
        opening.local(f"{server.url}/b.zip", tmp_path / "downloads")
    assert not list((tmp_path / "downloads").iterdir())


@pytest.mark.parametrize(
    "url", ["http://[::1/x.zip", "http://127.0.0.1:x/b.zip", "http://127.0.0.1/é.zip", "http://a..b/x"]
)
def test_what_is_no_url(tmp_path, server, url, capsys):
    with pytest.raises(UserError, match="not a URL"):
        opening.local(url, tmp_path)
    assert main(["unpack", url, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


# --- the disk


class FullDisk:
    """A file that takes a hundred bytes, then says what a full disk says, also when it is closed."""

    def __init__(self, path: Path, mode: str):
        self.path = path
        path.write_bytes(b"x" * 100)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.write(b"")

    def write(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_not_the_bundle_s_fault(files, tmp_path, monkeypatch):
    path = pack(tmp_path / "x.zip", files)
    monkeypatch.setattr(container, "open", FullDisk, raising=False)
    with pytest.raises(UserError, match=r"the disk is full .*nothing partial is left; free space") as caught:
        opening.unpack(opening.look(path), tmp_path / "out")
    assert "again" not in str(caught.value) and not list((tmp_path / "out").iterdir())


def test_a_bundle_that_cannot_be_read_is_not_the_disk_s_fault(files, tmp_path, monkeypatch):
    def fail(stream, size):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    opened = opening.look(pack(tmp_path / "x.zip", files))
    monkeypatch.setattr(zipfile.ZipExtFile, "read", fail)
    monkeypatch.setattr(opening, "index_bytes", lambda files: opened.data)
    with pytest.raises(UserError, match=r"x\.zip: cannot be read: .*; get the bundle again"):
        opening.unpack(opened, tmp_path / "out")


# --- limits


def test_the_limits_are_far_above_what_the_paper_s_study_has(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    runs = Runs(load_study("config/paper.yaml"))
    assert 50 * len(canonical_json(runs.plan())) < layout.LIMITS["runs.json"]
    assert 50 * max(len(canonical_json(one.model_dump(mode="json"))) for one in runs.specs()) < layout.LIMITS["specs"]
    assert 50 * len(to_yaml(runs.study)) < layout.SMALL
    looks, questions = 6 * 6 * 2, 5 * 150  # rates x epochs x V splits; splits x facts
    assert 20 * costs.eval_bytes(looks * questions, runs.study.scores.probes) < layout.LIMITS["evals"]


# --- results folders


def test_a_results_folder_is_known_by_its_content(results, tmp_path):
    name = opening.look(results).name
    shutil.copytree(results, tmp_path / "elsewhere/tiny", copy_function=shutil.copyfile)
    assert opening.look(tmp_path / "elsewhere/tiny").name == name
    path = next(results.glob("evals/rtt-*"))
    times = path.stat()
    path.write_text(path.read_text().replace('"split_0"', '"split_9"'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert opening.look(results).name != name


def test_a_results_folder_that_changes_while_it_is_read(results, tmp_path):
    opened = opening.look(results)
    path = next(results.glob("evals/rtt-*"))
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match=rf"{path.name} is not what"):
        opening.unpack(opened, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_the_whole_sha256_is_said(files, results, tmp_path, capsys):
    """Ten digits guard against mix-ups alone: the whole hash can be compared with one that was sent separately."""
    path = pack(tmp_path / "x.zip", files)
    assert main(["unpack", str(path), "--out", str(tmp_path / "out")]) == 0
    digest = hashlib.sha256((tmp_path / "out/given" / INDEX).read_bytes()).hexdigest()
    assert f"sha256 of bundle.json: {digest}" in capsys.readouterr().out
    assert main(["unpack", str(results), "--out", str(tmp_path / "out")]) == 0
    assert "a results folder has no checksums to verify" in capsys.readouterr().out


# --- the verdict


def test_given_files_that_nothing_rebuilds_are_named(files, tmp_path, capsys):
    forged = {BASE + name: b"forged" for name in ("figures/more.png", "report.html", "tables/extra/x.csv")}
    files = edited(files, "runs.json", builder.not_attacked) | forged
    path = pack(tmp_path / "x.zip", files, index_of(files) | {"shown": False})
    with silent():
        opening.unpack(opening.look(path), tmp_path / "out")
        rebuild.rebuild(tmp_path / "out", "tiny", shown=False)
    assert main(["verdict", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "0 of 7 equal the bundle's" in shown
    for name in ("figures/more.png", "report.html", "tables/extra/x.csv"):
        assert any(line.split() == [name, "not", "rebuilt"] for line in shown.splitlines())


def test_reasons_are_those_that_are_known(files, tmp_path):
    tables = files | {BASE + f"tables/{name}.csv": b"" for name in contents.TABLES}
    index = index_of(tables)
    assert rebuild.reasons(opening.look(pack(tmp_path / "x.zip", tables, index)).index) == []  # their code is not said
    index["files"][BASE + "tables/recovery.csv"] |= {"step": "tables", "code": "0123456789"}
    [reason] = rebuild.reasons(opening.look(pack(tmp_path / "y.zip", tables, index)).index)
    assert reason.endswith("not those that made the bundle's: tables")
