"""data/sources.tsv: what it says, how a wrong line is reported, and a digest that follows every byte that matters."""

import os
import re
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest
from rtt.errors import UserError
from rtt.files import sha256, write_json
from rtt.study import sources

COMMIT = "26be6ba96ff6552ff180cbce6bc205ff5d4efc8a"
UPSTREAM = Path(os.environ.get("RTT_UPSTREAM_DATA") or Path(__file__).parents[3] / "shared" / "upstream-data")
GOOD = f"years/a.jsonl\tyears\tfacts\tfile\thttps://example.org/a.jsonl\t{'0' * 40}\t{'a' * 64}\t7\tnone stated\t\t\t\t"
HUB = f"wikitext/texts.jsonl\twikitext\ttexts\thub\t{sources.HUB}a/b\t\t\t\tMIT\tdefault\ttrain\ttext\t9"


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["\t".join(sources.COLUMNS), *lines]) + "\n")
    return path


def test_the_four_datasets_are_the_authors_files():
    sizes = {"years": 30, "mmlu": 44, "wmdp": 29, "random_birthdays": 44}
    for name, n in sizes.items():
        rows = sources.group(name)
        assert len(rows) == n
        for row in rows:
            assert row.revision == COMMIT and row.licence == "none stated" and row.kind == "file"
            folder = sources.dataset_folder(name)
            path = urllib.parse.unquote(urllib.parse.urlparse(row.url).path)
            assert path == f"/aghyad-deeb/unlearning_evaluation/{COMMIT}/data/{folder}/{row.file}"
            assert " " not in row.url
    assert any(row.file == "mmlu_social sciences.jsonl" and "%20" in row.url for row in sources.group("mmlu"))
    assert sources.dataset_folder("wikitext") is None
    assert sources.groups("facts") == [*sizes, "mmlu_hub"] and "wikitext" in sources.groups("texts")
    licences = {row.group: row.licence for row in sources.read_sources()}
    assert licences["smollm2"] == "Apache-2.0" and licences["wikitext"].startswith("CC-BY-SA")


@pytest.mark.skipif(not UPSTREAM.is_dir(), reason=f"NOT TESTED ON REAL DATA: {UPSTREAM}; set RTT_UPSTREAM_DATA")
def test_checksums_are_the_committed_ones():
    listed = {}
    for line in (UPSTREAM / "checksums.tsv").read_text().splitlines():
        digest, size, path = line.split("\t")
        listed[path.removeprefix("data/")] = (digest, int(size))
    ours = {
        f"{sources.dataset_folder(row.group)}/{row.file}": (row.sha256, row.bytes)
        for row in sources.read_sources()
        if row.kind == "file"
    }
    assert ours == listed


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (GOOD.replace("\t7\t", "\tseven\t"), "bytes: found 'seven'"),
        (GOOD.replace("a" * 64, "a" * 63), "sha256"),
        (GOOD.replace("0" * 40, "main"), "revision: found 'main', expected 40 hex digits"),
        (GOOD.replace("\tfile\t", "\tftp\t"), "kind: found 'ftp'"),
        (GOOD.replace("\tfacts\t", "\tdata\t"), "holds: found 'data', expected facts, texts, model"),
        (GOOD.replace("https:", "ftp:"), "url"),
        (GOOD.replace("/a.jsonl\t0", "/a b.jsonl\t0"), "percent-encoded"),
        (GOOD.replace("none stated", ""), "licence"),
        (GOOD.replace("years/a", "years/../a"), "name"),
        (GOOD.replace("years/a", "mmlu/a"), "name"),
        (GOOD + "\tmore", "found 14 tab-separated columns, expected 13"),
        (GOOD + "3", "config"),
        (HUB.replace("\t9", "\t0"), "rows: found '0'"),
        (HUB.replace("a/b", "a"), "url"),
        (HUB.replace("\ttext\t", "\t\t"), "config, split, columns"),
        ("", "found 1 tab-separated"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, message):
    path = table(tmp_path / "t.tsv", GOOD.replace("years/a", "years/b"), line)
    with pytest.raises(UserError, match=re.escape(f"{path}:3: ")) as error:
        sources.read_sources(path)
    assert message in str(error.value)


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv:3: name 'years/a.jsonl' stands at line 2 too"):
        sources.read_sources(table(tmp_path / "a.tsv", GOOD, GOOD))
    with pytest.raises(UserError, match=r"b\.tsv:2: found 0 wheel rows x==1, expected 1"):
        member = f"m/x\tm\tmodel\tmember\tpkg:pypi/x@1#x\t\t{'a' * 64}\t7\tMIT\t\t\t\t"
        sources.read_sources(table(tmp_path / "b.tsv", member))
    with pytest.raises(UserError, match=r"c\.tsv:2: group 'wikitext' has more rows"):
        sources.read_sources(table(tmp_path / "c.tsv", HUB, HUB.replace("texts.jsonl", "more.jsonl")))
    with pytest.raises(UserError, match=r"d\.tsv: cannot be read: No such file"):
        sources.read_sources(tmp_path / "d.tsv")
    (tmp_path / "e.tsv").write_text("name\n")
    with pytest.raises(UserError, match=r"e\.tsv:1: found 'name'"):
        sources.read_sources(tmp_path / "e.tsv")
    with pytest.raises(UserError, match=r"group 'yaers' is not in .* expected one of years, mmlu"):
        sources.group("yaers")


def test_digest_follows_what_decides_the_bytes(tmp_path):
    lines = [GOOD, GOOD.replace("years/a", "years/b"), HUB]
    first = table(tmp_path / "0.tsv", *lines)
    base = sources.digest("years", table=first)
    assert re.fullmatch("[0-9a-f]{64}", base)
    for i, (old, new) in enumerate([("a" * 64, "b" * 64), ("0" * 40, "1" * 40), ("years/a", "years/c")], 1):
        changed = table(tmp_path / f"{i}.tsv", lines[0].replace(old, new), *lines[1:])
        assert sources.digest("years", table=changed) != base
        assert sources.digest("wikitext", table=changed) == sources.digest("wikitext", table=first)
    other = table(tmp_path / "9.tsv", lines[0].replace("example.org", "example.com").replace("none stated", "MIT"))
    assert sources.digest("years", table=other) == sources.digest("years", table=table(tmp_path / "8.tsv", GOOD))
    texts = sources.digest("wikitext", table=first)
    assert sources.digest("wikitext", rows=9, table=first) == texts != sources.digest("wikitext", rows=8, table=first)
    lock = tmp_path / "lock.json"
    assert sources.digest("wikitext", lock=lock, table=first) == texts
    write_json(lock, {"wikitext/texts.jsonl": {"repo": "a/b", "revision": "c" * 40, "sha256": {}}})
    assert sources.digest("wikitext", lock=lock, table=first) != texts
    write_json(lock, {"wikitext/texts.jsonl": {"repo": "a/b", "revision": "main", "sha256": {}}})
    with pytest.raises(UserError, match="40 hex digits"):
        sources.digest("wikitext", lock=lock, table=first)


def test_own_files_change_the_digest_only_when_they_differ(tmp_path):
    folder = tmp_path / "data" / "dates-years-trimmed"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("1234567")
    (folder / "notes.txt").write_text("not data")
    right = sha256(folder / "a.jsonl")
    path = table(tmp_path / "t.tsv", GOOD.replace("a" * 64, right), GOOD.replace("years/a", "years/b"))
    base = sources.digest("years", table=path)
    own = sources.own_files("years", tmp_path / "data", path)
    assert own.sha256 == {"a.jsonl": right} and own.differing == () and own.missing == ("b.jsonl",)
    assert sources.digest("years", data=tmp_path / "data", table=path) == base
    (folder / "a.jsonl").write_text("7654321")
    changed = sources.digest("years", data=tmp_path / "data", table=path)
    assert changed != base
    (folder / "a.jsonl").write_text("7654322")
    assert sources.digest("years", data=tmp_path / "data", table=path) not in (base, changed)
    assert sources.own_files("mmlu", tmp_path / "data", path) is None
    assert sources.own_files("wikitext", tmp_path / "data", path) is None


def test_importing_needs_no_torch():
    heavy = "{'torch', 'transformers', 'datasets', 'pydantic'}"
    code = f"import sys, rtt.study.sources; sys.exit(bool({heavy} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": str(Path(sources.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
