"""What is printed about names that somebody else chose steers no terminal."""

import contextlib
import errno
import os
import subprocess
import sys
import unicodedata

import pytest
from rtt.__main__ import main
from rtt.errors import printable

STEERING = "\x1b]0;owned\x07\x9b2J\r\u202e\ud800\x7f"


def test_only_what_steers_is_written_as_an_escape():
    assert printable("Zoë's\n\tnaïve 名前") == "Zoë's\n\tnaïve 名前"
    assert printable("a\x1b[2Jb") == r"a\x1b[2Jb"
    assert not [one for one in printable(STEERING) if unicodedata.category(one) in ("Cc", "Cf", "Cs")]


@pytest.mark.parametrize("command", [["audit"], ["summary", "--results"], ["check"], ["plan", "--configfile"], ["x"]])
def test_no_message_of_a_command_steers_a_terminal(command, capsys):
    with contextlib.suppress(SystemExit):
        assert main([*command, STEERING.replace("\ud800", "\udcff")]) in (1, 2)
    said = "".join(capsys.readouterr())
    assert said and not set(said) & set("\x1b\x07\x9b\r\u202e\x7f\udcff"), repr(said)


def test_a_folder_that_cannot_be_written_is_one_message(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / "tables/recovery.csv"))

    monkeypatch.setattr("rtt.report.summary.run", refuse)
    assert main(["summary", "--results", "x"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path}/tables/recovery.csv: Read-only file system; ") and said.count("\n") == 1


def test_a_reader_who_leaves_early_ends_a_command_without_a_traceback(tmp_path):
    """As in `rtt audit DIR | head -1`, with more output than a pipe holds."""
    (tmp_path / "split_0.jsonl").write_text('{"question": 0}\n' * 2000)
    command = [sys.executable, "-m", "rtt", "audit", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141
