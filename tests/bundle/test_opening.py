"""Opening bundles: downloads, full disks, limits, results folders, and what the commands say of them."""

import errno
import hashlib
import json
import os
import shutil
import threading
import zipfile
from pathlib import Path

import pytest
from bundle_builder import BUNDLE, pack, tree
from file_server import Server, download_port
from rtt import code_version as hashes
from rtt.__main__ import main
from rtt.bundle import container, contents, layout, opening
from rtt.bundle.layout import INDEX
from rtt.errors import UserError
from rtt.fetch import download
from rtt.files import canonical_json
from rtt.planner import costs
from rtt.study.expand import Runs
from rtt.study.load import load_study, to_yaml


@pytest.fixture
def results(files, tmp_path) -> Path:
    """A results folder with these files."""
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


def test_a_file_that_is_too_large_is_not_downloaded(files, tmp_path, server, monkeypatch):
    data = pack(tmp_path / "tiny.zip", files).read_bytes()
    monkeypatch.setattr(opening, "MAX_DOWNLOAD", len(data) - 1)
    for name, faults in (("/announced.zip", []), ("/endless.zip", ["no length"])):
        server.content[name], server.faults[name] = data, faults
        with pytest.raises(UserError, match=r"larger than .* nothing was kept"):
            opening.local(f"{server.url}{name}", tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()


def test_a_page_in_the_place_of_a_bundle_is_not_kept(files, tmp_path, server):
    """A server that says "log in" says it with status 200; the next try must ask it again."""
    url, downloads = f"{server.url}/b.zip", tmp_path / "downloads"
    server.content["/b.zip"] = b"<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(UserError, match=r"what came: not a whole zip.*nothing was kept.*name its path") as caught:
        opening.local(url, downloads)
    assert str(caught.value).startswith(url) and ".part-" not in str(caught.value) and not downloads.exists()
    server.content["/b.zip"] = pack(tmp_path / "x.zip", files).read_bytes()
    assert opening.look(opening.local(url, downloads)).index.study == "tiny"
    assert server.asked == ["/b.zip", "/b.zip"]


def test_another_bundle_than_the_url_names_is_not_kept(files, tmp_path, server):
    server.content["/tiny-0123456789.zip"] = pack(tmp_path / "x.zip", files).read_bytes()
    with pytest.raises(UserError, match=r"another bundle than its name says.*nothing was kept"):
        opening.local(f"{server.url}/tiny-0123456789.zip", tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()


@pytest.mark.parametrize("fault, words", [(403, "refuses access"), (500, "4 times"), (None, "without a network")])
def test_the_advice_where_nothing_can_be_downloaded(tmp_path, server, fault, words):
    """A bundle has no mirror, so the advice is to download it by hand."""
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
        ("http://[::1/b.zip", "not a valid URL"),
        ("http://127.0.0.1:x/", "not a valid URL"),
    ],
)
def test_a_redirect_leads_nowhere_but_to_the_web(tmp_path, server, monkeypatch, place, words):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", place)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(server.RequestHandlerClass, "do_GET", answer)
    with pytest.raises(UserError, match=rf"{server.url}.*{words}"):
        opening.local(f"{server.url}/b.zip", tmp_path / "downloads")
    assert not (tmp_path / "downloads").exists()


@pytest.mark.parametrize(
    "url", ["http://[::1/x.zip", "http://127.0.0.1:x/b.zip", "http://127.0.0.1/é.zip", "http://a..b/x"]
)
def test_addresses_that_are_no_urls(tmp_path, server, url, capsys):
    with pytest.raises(UserError, match="not a valid URL"):
        opening.local(url, tmp_path)
    assert main(["unpack", url, "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.startswith("error: ")


# --- the disk


class FullDisk:
    """A file that takes a hundred bytes and then raises what a full disk raises, also when it is closed."""

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
    assert "again" not in str(caught.value) and not (tmp_path / "out").exists()


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
    assert 18 * costs.eval_bytes(looks * questions, runs.study.scores.probes) < layout.LIMITS["evals"]


# --- results folders


def test_a_results_folder_is_known_by_its_content(results, tmp_path):
    name = opening.look(results).name
    shutil.copytree(results, tmp_path / "elsewhere/tiny", copy_function=shutil.copyfile)
    assert opening.look(tmp_path / "elsewhere/tiny").name == name
    path = next(results.glob("evals/*/original.json"))
    times = path.stat()
    path.write_text(path.read_text().replace('"split_0"', '"split_9"'))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert opening.look(results).name != name


def test_a_results_folder_that_changes_while_it_is_read(results, tmp_path):
    opened = opening.look(results)
    path = next(results.glob("evals/*/original.json"))
    path.write_text(path.read_text() + " ")
    with pytest.raises(UserError, match=rf"{path.name} is not what"):
        opening.unpack(opened, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_whole_sha256_is_said(files, results, tmp_path, capsys):
    """Ten digits guard only against mix-ups. The whole hash can be compared with one that was sent separately."""
    path = pack(tmp_path / "x.zip", files)
    assert main(["unpack", str(path), "--out", str(tmp_path / "out")]) == 0
    digest = hashlib.sha256((tmp_path / "out/given" / INDEX).read_bytes()).hexdigest()
    assert f"sha256 of bundle.json: {digest}" in capsys.readouterr().out
    assert main(["unpack", str(results), "--out", str(tmp_path / "out")]) == 0
    assert "a results folder has no checksums to verify" in capsys.readouterr().out


# --- results folders and unpacked bundles


def test_a_results_folder_opens_and_is_left_as_it_was(results, tmp_path, capsys):
    before = tree(results)
    times = {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    opened = opening.look(results)
    opening.unpack(opened, tmp_path / "out")
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path)  # as Snakemake does with outputs
    assert tree(results) == before and times == {path: path.stat().st_mtime_ns for path in results.rglob("*")}
    assert opened.index.study == "tiny" and (tmp_path / "out/results/tiny/evals").is_dir()
    assert not (tmp_path / "out/results/tiny/models").exists()


def test_an_unpacked_bundle_opens_and_is_verified(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "there")
    opening.unpack(opening.look(tmp_path / "there"), tmp_path / "out")
    assert opening.look(tmp_path / "there").name == opening.look(bundle).name
    with open(tmp_path / "there/results/tiny/study.yaml", "r+") as handle:
        handle.write("X")
    with pytest.raises(UserError, match=r"study\.yaml is not what bundle\.json says"):
        opening.unpack(opening.look(tmp_path / "there"), tmp_path / "out2")


def test_a_second_unpacking_replaces_the_first(bundle, tmp_path):
    opening.unpack(opening.look(BUNDLE), tmp_path)
    opening.unpack(opening.look(bundle), tmp_path)
    assert (tmp_path / "given/results/tiny/report.html").is_file()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# --- code that has changed


def test_changed_training_code_is_named_with_its_runs(bundle, monkeypatch):
    index = opening.look(bundle).index
    assert len(index.runs) == 10  # six runs, one point choice, three datasets
    lines = [line for line in opening.stale(index) if line.startswith("warning")]
    assert len(lines) == len({maker.step for maker in index.runs.values()})  # no code has the hash that all of them say
    for run, maker in index.runs.items():
        assert any(run in line and f"step {maker.step} " in line and "it is not run again" in line for line in lines)
    same = {maker[::2]: maker.code for maker in index.runs.values()}
    monkeypatch.setattr(hashes, "code_version", lambda step, plugin=None: same.get((step, plugin), "x" * 10))
    lines = opening.stale(index)
    assert len(lines) == 1 and "locked packages have changed since: figure, report, tables" in lines[0]


def test_runs_point_choices_and_audits_say_which_code_made_them(results):
    runs = contents.read_runs(results)
    made = contents.makers(results, runs)
    assert {maker.plugin for maker in made.values()} == {None, "GD", "RTT", "quantise"}
    assert {maker.step for maker in made.values()} == {"pretrain", "unlearn", "choose", "attack", "facts"}
    assert contents.index(contents.collect(results)).runs == made
    lines = contents.stale(results, runs)
    [run] = contents.stems(runs, "point_choices")
    assert any(run in line and "step choose" in line and line.endswith("--forcerun choose") for line in lines)


def test_what_evaluations_lack_to_prove_them_is_named(results):
    runs, evals = contents.read_runs(results), [*results.glob("evals/attack-RTT-pretrained-*/*.json")]
    assert len(evals) == 3
    for path in results.rglob("evals/**/*.json"):  # the committed ones have no metrics
        path.write_text(canonical_json(json.loads(path.read_text()) | {"metrics": {"accuracies": []}}))
    assert contents.unproved(results, runs) == []
    evals[0].write_text(canonical_json({**json.loads(evals[0].read_text()), "metrics": {}}))
    (manifest,) = results.glob("manifests/attack-RTT-pretrained-*.json")
    manifest.unlink()
    gone, bare = contents.unproved(results, runs)
    assert gone.startswith(f"{manifest}: no such file, so nothing shows") and all(str(path) in gone for path in evals)
    assert bare.startswith(f"{evals[0]}: metrics.accuracies is missing") and str(evals[1]) not in bare
    evals[0].unlink()  # the run has not ended
    assert contents.unproved(results, runs) == []
