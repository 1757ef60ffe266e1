"""Fixtures of the tests of bundles."""

import json
import shutil
from pathlib import Path

import bundle_builder as builder
import pytest
from bundle_builder import tree
from rtt.bundle import opening, write
from rtt.errors import UserError


@pytest.fixture(scope="session")
def files() -> dict[str, bytes]:
    """The files of a good bundle."""
    return builder.committed()


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A finished results folder, also with files that no bundle may take. It is shared: change nothing in it."""
    with builder.silent():
        results = builder.finished(tmp_path_factory.mktemp("made"))
    for folder in (results / "data").iterdir():
        builder.write_texts(folder)
    audit = next((results / "data").glob("*/audit.json"))
    detail = {"path": "split_0.jsonl", "line": 3, "fact_ids": [], "kind": "duplicate_question"}
    detail |= {"message": builder.QUESTION}
    found = json.loads(audit.read_text())
    found["details"] = [detail, {**detail, "kind": "letter_prior", "message": "always answering A is right"}]
    audit.write_text(json.dumps(found))
    (results / "models").mkdir()
    (results / "models/model.safetensors").write_bytes(b"weights")
    older = next((results / "evals").glob("*/original.json"))
    (results / "evals/attack-older-s0-0123456789").mkdir()
    shutil.copy(older, results / "evals/attack-older-s0-0123456789")
    return results


@pytest.fixture
def results(made, tmp_path) -> Path:
    """A copy of it, to change at will."""
    return Path(shutil.copytree(made, tmp_path / "results/tiny"))


@pytest.fixture(scope="session")
def bundle(made, tmp_path_factory) -> Path:
    """Its bundle."""
    return write.write(made, tmp_path_factory.mktemp("dist"))


@pytest.fixture
def refused(tmp_path):
    """Open a bundle that must be refused, and return the message; nothing may change on the disk."""

    def call(path: Path, *words: str) -> str:
        out = tmp_path / "deep/er/out"
        out.mkdir(parents=True, exist_ok=True)
        before = tree(tmp_path)
        with pytest.raises(UserError) as caught:
            opening.unpack(opening.look(path), out)
        assert tree(tmp_path) == before and not list(out.iterdir())
        message = str(caught.value)
        assert str(path) in message or "results/tiny" in message or "runs.json" in message, message
        assert message.isprintable(), message
        for word in words:
            assert word in message, message
        return message

    return call
