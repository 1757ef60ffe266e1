"""`python -m rtt doctor` on what surrounds a run: disk, folder, locks, fetched files, secrets, profiles."""

import fcntl
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doctor_fixtures import SMOKE
from places import ROOT
from rtt.__main__ import main
from rtt.doctor import surroundings
from rtt.doctor.checks import Patient
from rtt.runtime import locks
from rtt.study.load import load_study

pytest_plugins = ["doctor_fixtures"]


def test_a_disk_that_is_too_small_comes_with_what_to_do(ask, monkeypatch, tmp_path):
    monkeypatch.setattr(surroundings, "_disk_of", lambda path: (tmp_path, 1e3, 100))
    code, checks = ask()
    assert code == 1
    for name, words in (("disk", "free space, or run from"), ("inodes", "only 100 more files"), ("scratch", "TMPDIR")):
        assert checks[name][0] == "do" and words in checks[name][1]


def test_a_file_system_without_locks_is_reported(ask, monkeypatch):
    """As NFS mounted with nolock, and one that grants every lock."""
    patient = Patient(load_study(SMOKE), SMOKE, ROOT, None)
    monkeypatch.setattr(surroundings, "_locks_work", lambda folder: False)
    assert [check.status for check in surroundings.work_folder(patient) if check.name == "file locks"] == ["look"]
    monkeypatch.undo()

    def refuse(*arguments):
        raise OSError("no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert not surroundings._locks_work(ROOT)


def test_a_folder_that_cannot_be_written_is_reported(tmp_path):
    patient = Patient(load_study(SMOKE), SMOKE, tmp_path / "gone", None)
    assert [check.status for check in surroundings.work_folder(patient)] == ["do"]


def test_another_run_in_the_folder_is_named(tmp_path):
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        locks.register(tmp_path / locks.FOLDER, "snakemake", role="main", pid=sleeper.pid)
        patient = Patient(load_study(SMOKE), SMOKE, tmp_path, None)
        (found,) = [check for check in surroundings.work_folder(patient) if check.name == "other runs"]
        assert found.status == "look" and f"pid {sleeper.pid}" in found.text
    finally:
        sleeper.communicate(b"\n")


def test_secrets_are_named_and_not_shown(slurm, profile, monkeypatch, capsys):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MYPASSWORD", "API_KEY"):
        monkeypatch.setenv(name, "hidden-value")
    for name in ("TOKENIZERS_PARALLELISM", "KEYBOARD", "MONKEY", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "hidden-value")
    assert main(["doctor", "--configfile", SMOKE, "--profile", profile()]) == 1
    said = capsys.readouterr().out
    assert "unset API_KEY AWS_SECRET_ACCESS_KEY HF_TOKEN MYPASSWORD\n" in said and "hidden-value" not in said


@pytest.mark.parametrize(
    ("place", "kind", "status"),
    [("/tmp/work", "nfs", "do"), ("/home/me", "lustre", "ok"), ("/home/me", "ext4", "look"), ("/home/me", "", "look")],
)
def test_the_work_folder_must_be_on_a_shared_file_system(monkeypatch, profile, place, kind, status):
    monkeypatch.setattr(surroundings, "file_system", lambda folder: ("/", kind))
    monkeypatch.setattr(surroundings, "_locks_work", lambda folder: True)
    monkeypatch.delenv("TMPDIR", raising=False)
    patient = Patient(load_study(SMOKE), SMOKE, Path(place), Path(profile()))
    assert next(surroundings.work_folder(patient)).status == status


def test_the_file_system_of_a_folder_is_found():
    assert surroundings.file_system(ROOT)[1] and surroundings.file_system(ROOT)[0] in (
        "/",
        *map(str, ROOT.parents),
        str(ROOT),
    )


def test_a_profile_that_does_not_exist_is_refused(capsys):
    assert main(["doctor", "--configfile", SMOKE, "--profile", "nowhere"]) == 1
    assert "error: --profile nowhere: no such folder, nor" in capsys.readouterr().err


def test_what_must_be_fetched_first_is_told(fresh):
    """By a real dry run of `snakemake fetch`: nothing there, then all there."""
    study = "config/smollm-small.yaml"
    command = ["-m", "rtt", "doctor", "--configfile", study, "--config", "device=cpu"]
    first = fresh.python(*command)
    assert first.returncode == 1
    line = next(line for line in first.stdout.splitlines() if "data and models" in line)
    assert line.startswith("do") and "snakemake fetch --cores 1 --configfile" in line and "device=cpu" in line
    said = fresh.snakemake("fetch", "-n", "-c1", "--configfile", study).stdout
    made = re.findall(r"^ +output: (.*)$", said, re.MULTILINE)
    assert made
    for name in (name for names in made for name in names.split(", ")):
        path = fresh.folder / name
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.write_text("{}")  # a manifest
    second = fresh.python(*command)
    assert "ok    data and models: all fetched; jobs ask no hub" in second.stdout.splitlines(), second.stdout + said
