"""Fixtures of the tests of bundles."""

import dataclasses
import json
import shutil
from pathlib import Path

import bundle_builder as builder
import pandas as pd
import pytest
from bundle_builder import tree
from rtt.bundle import opening, rebuild, write
from rtt.errors import UserError
from rtt.report import images


@pytest.fixture(scope="session", autouse=True)
def drawn_once():
    """Draw a figure of the same tables once: most tests here write or rebuild one bundle, whose figures take longest.

    That the same tables always give the same bytes is shown by test_threads_and_cpu_features_change_no_byte, whose
    processes draw all of it anew, and by tests/figures/test_draw.py.
    """

    def once(draw):
        drawn = {}

        def drawn_before(name, view, *more, **named):
            parts = (getattr(view, field.name) for field in dataclasses.fields(view))
            tables = tuple(part.to_csv() if isinstance(part, pd.DataFrame) else repr(part) for part in parts)
            key = (name, tables, repr(more), repr(named))
            if key not in drawn:
                drawn[key] = draw(name, view, *more, **named)
            return drawn[key]

        return drawn_before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rebuild, "render", once(rebuild.render))
        patch.setattr(images, "render_told", once(images.render_told))
        yield


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
