"""The identity of input files: every byte counts, and a large file is read once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rtt.study import digests

SIZE = 3 * 2**20


@pytest.fixture
def big(tmp_path, monkeypatch):
    """A file that counts as large; the cache is in a folder of the test's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "LARGE", 2**20)
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(os.urandom(SIZE))
    return path


def digest(path) -> str:
    digests.folder_digest.cache_clear()
    return digests.folder_digest(path.parent)


def change(path, at=SIZE // 2, times=False):
    """Change one byte in place."""
    before = path.stat()
    with open(path, "r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))
    if times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def reads(monkeypatch) -> list:
    """Return a list that grows with each large file that is read."""
    found, real = [], digests._sha256
    monkeypatch.setattr(digests, "_sha256", lambda path, size: found.append(path) or real(path, size))
    return found


def records(tmp_path):
    return list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize("times", [False, True])
def test_a_byte_in_the_middle_of_a_large_file_is_another_model(big, times):
    """Also with the old time of modification, as `cp -p` leaves it: the kernel's own time changes."""
    before = digest(big)
    change(big, times=times)
    after = digest(big)
    assert after != before
    change(big)
    assert digest(big) == before


def test_a_large_file_is_read_once(big, monkeypatch, tmp_path):
    read, before = reads(monkeypatch), digest(big)
    assert digest(big) == before and len(read) == 1
    (tmp_path / "link").symlink_to(big.parent)  # the same file by another path
    assert digest(tmp_path / "link" / big.name) == before and len(read) == 1
    other = big.with_name("copy")
    other.write_bytes(big.read_bytes())
    os.replace(other, big)  # another inode
    assert digest(big) == before and len(read) == 2


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"sha256": 1}', "cut", "sum"])
def test_a_damaged_record_is_ignored(big, monkeypatch, tmp_path, damage):
    before, (record,) = digest(big), records(tmp_path)
    if damage == "cut":
        damage = record.read_bytes()[:-20]
    if damage == "sum":
        damage = json.dumps(json.loads(record.read_text()) | {"sha256": "xyz"}).encode()
    record.write_bytes(damage)
    read = reads(monkeypatch)
    assert digest(big) == before and len(read) == 1
    assert digest(big) == before and len(read) == 1  # written anew


def test_a_cache_that_cannot_be_written_costs_time_alone(big, monkeypatch, tmp_path):
    before = digest(big)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert digest(big) == before


def test_many_processes_may_write_at_once(big, tmp_path):
    code = "import sys; from rtt.study import digests; digests.LARGE = 2**20; print(digests.folder_digest(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": str(Path(digests.__file__).parents[2])}
    jobs = [
        subprocess.Popen([sys.executable, "-c", code, str(big.parent)], env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    assert {job.communicate()[0].decode().strip() for job in jobs} == {digest(big)}
    (record,) = records(tmp_path)
    assert [path.name for path in record.parent.iterdir()] == [record.name]


def test_hashing_that_takes_long_says_how_long(big, monkeypatch, capsys):
    monkeypatch.setattr(digests, "PATIENCE", 0)
    monkeypatch.setattr(digests, "CHUNK", 2**20)
    digest(big)
    assert "hashing 0.0 of 0.0 GB, about 0:00 left" in capsys.readouterr().err
