"""Model folders are whole or absent, carry checksums, and a killed process leaves nothing for good."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
from rtt import checksums
from rtt.errors import UserError
from rtt.files import sha256
from rtt.models import folders
from rtt.models.load import load, model_hash, save

AT_WORK = """
import sys, time; from pathlib import Path
from rtt.models.folders import whole_folder
with whole_folder(Path(sys.argv[1])) as scratch:
    (scratch / "whole").mkdir(); (scratch / "whole" / "half").write_text("x")
    print(scratch, flush=True); time.sleep(600)
"""


@pytest.fixture
def saved(tmp_path):
    save(tiny.model(), tiny.tokenizer(), tmp_path / "m")
    return tmp_path / "m"


def test_a_saved_folder_records_all_its_files(saved):
    files = {path.name for path in saved.iterdir()}
    assert checksums.recorded(saved) == {name: sha256(saved / name) for name in files - {"sha256.json"}}
    assert "model.safetensors" in files and model_hash(saved) == sha256(saved / "model.safetensors")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_file_that_is_not_as_it_was_written_is_refused_by_name(saved, name):
    content = bytearray((saved / name).read_bytes())
    content[-1] ^= 1
    (saved / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: damaged or changed: .* delete {saved} and start again"):
        load(saved)


def test_a_damaged_record_is_refused_by_name(saved):
    (saved / "sha256.json").write_text("[1]")
    with pytest.raises(UserError, match=r"sha256.json: expected file names with their sha256"):
        load(saved)


def test_what_a_killed_process_left_goes_at_the_next_run_and_a_live_one_s_stays(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(folders.__file__).parents[2])}
    jobs = [
        subprocess.Popen([sys.executable, "-c", AT_WORK, str(tmp_path / "m")], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    scratch = [Path(job.stdout.readline().decode().strip()) for job in jobs]
    try:
        jobs[0].send_signal(signal.SIGKILL)
        jobs[0].wait()
        assert (scratch[0] / "whole" / "half").is_file()
        (tmp_path / ".other.abc").mkdir()  # of another folder
        save(tiny.model(), tiny.tokenizer(), tmp_path / "m")
        assert not scratch[0].exists() and (scratch[1] / "whole" / "half").is_file()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([".other.abc", "m", scratch[1].name])
    finally:
        jobs[1].kill()
        jobs[1].wait()


def test_a_scratch_folder_without_a_lock_goes_once_it_is_old(tmp_path):
    for name, age in ((".m.new", 0), (".m.old", 100)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    save(tiny.model(), tiny.tokenizer(), tmp_path / "m")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.new", "m"]
