"""The bundle's RO-Crate passes a validator by other people, which runs in an environment of its own."""

import hashlib
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import rocrate
from rocrate.rocrate import ROCrate
from rtt.bundle.layout import CRATE, INDEX

VALIDATOR = "roc-validator==0.13.0"
PROFILES = ("ro-crate-1.1", "workflow-ro-crate-1.0", "workflow-run-crate-0.5")
# The one document that the validator fetches. rocrate brings a newer one, which differs in these of our terms.
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
OLD_TERMS = {"ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow"}
START = """
import sys
import requests
from rocrate_validator.cli import cli

def send(self, request, **kwargs):
    if request.url != CONTEXT:
        raise requests.ConnectionError(request.url)
    answer = requests.Response()
    answer.status_code, answer.url, answer.request, answer._content = 200, request.url, request, TEXT
    answer.headers["Content-Type"] = "application/ld+json"
    return answer

requests.adapters.HTTPAdapter.send = send
cli()
"""


def test_the_crate_is_a_workflow_run_crate(bundle, tmp_path):
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path)
    crate = ROCrate(tmp_path)
    root = crate.root_dataset
    for key in ("name", "description", "datePublished", "license"):
        assert root[key], key
    profiles = {one if isinstance(one, str) else one.id for one in root["conformsTo"]}
    assert {f"https://w3id.org/ro/wfrun/{kind}/0.5" for kind in ("process", "workflow")} <= profiles
    main = crate.mainEntity
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} == set(main.type)
    assert main["programmingLanguage"]["name"] == "Snakemake"
    [action] = [one for one in crate.contextual_entities if one.type == "CreateAction"]
    assert action["instrument"] is main and root["mentions"] in (action, [action])
    assert action["endTime"] and any(one.id.endswith("report.html") for one in action["result"])
    with zipfile.ZipFile(bundle) as archive:
        assert {entity.id for entity in crate.data_entities} == set(archive.namelist()) - {CRATE}
        for entity in crate.data_entities:
            if entity.id != INDEX:
                assert entity["sha256"] == hashlib.sha256(archive.read(entity.id)).hexdigest()
                assert entity["contentSize"] == str(archive.getinfo(entity.id).file_size)


@pytest.fixture(scope="module")
def validator(tmp_path_factory) -> Path:
    """A Python with the validator. Where it cannot be installed, the test fails in CI and is skipped elsewhere."""
    folder = tmp_path_factory.mktemp("validator")
    venv.create(folder, with_pip=False, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", str(folder), "install", "--quiet", "--no-input", VALIDATOR]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"pip could not install {VALIDATOR}: {done.stderr[-300:]}")
    return folder / "bin/python"


def issues(validator: Path, crate: Path, profile: str) -> list[str]:
    """Return what the validator finds wrong among the REQUIRED checks of a profile and those that it builds on."""
    report = crate.parent / "report.json"
    context = json.loads(Path(rocrate.__file__).parent.joinpath("data/ro-crate.jsonld").read_text())
    text = json.dumps({"@context": context["@context"] | OLD_TERMS}).encode()
    start = report.with_name("start.py")
    start.write_text(START.replace("CONTEXT", repr(CONTEXT)).replace("TEXT", repr(text)))
    flags = ["--profile-identifier", profile, "--requirement-severity", "REQUIRED", "--no-cache"]
    output = ["--output-format", "json", "--output-file", str(report)]
    command = [str(validator), str(start), "--no-interactive", "validate", "--no-paging", *flags, *output, str(crate)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert report.is_file(), done.stdout + done.stderr
    found = json.loads(report.read_text())
    report.unlink()
    assert found["passed"] is not bool(found["issues"])
    return [one["message"] for one in found["issues"]]


def test_the_crate_validates_and_a_spoilt_one_does_not(validator, bundle, tmp_path):
    crate = tmp_path / "crate"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(crate)
    assert {profile: issues(validator, crate, profile) for profile in PROFILES} == {profile: [] for profile in PROFILES}
    metadata = crate / "ro-crate-metadata.json"
    spoilt = json.loads(metadata.read_text())
    for entity in spoilt["@graph"]:
        entity.pop("instrument", None)
    metadata.write_text(json.dumps(spoilt))
    assert any("instrument" in message for message in issues(validator, crate, PROFILES[-1]))
