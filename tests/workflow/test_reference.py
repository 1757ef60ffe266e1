"""The reference in docs/reference is what the code says."""

import importlib.util
import re

import pytest
from places import ROOT
from rtt.__main__ import main
from rtt.bundle import documents

SPEC = importlib.util.spec_from_file_location("reference", ROOT / "scripts/reference.py")
reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(reference)


def test_every_page_is_up_to_date():
    old = [
        str(path.relative_to(ROOT))
        for path, text in reference.pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    assert not old, f"bring {', '.join(old)} up to date: python scripts/reference.py"


@pytest.mark.parametrize("name", reference.COMMANDS)
def test_a_command_s_table_names_every_option_of_its_help(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    options = {word.strip("[],") for word in capsys.readouterr().out.split() if word.strip("[],").startswith("--")}
    options = {option for option in options if option.strip("-").replace("-", "").isalnum()} - {"--help"}
    table = reference.command(name, *reference.COMMANDS[name])
    assert not [option for option in options if f"`{option}`" not in table]


def test_a_document_s_table_names_every_key_that_is_checked():
    tables = re.split(r"^### `.*`$", "\n".join(reference.shapes()), flags=re.MULTILINE)[1:]
    shapes = [shape for pattern, shape in documents.SHAPES if not pattern.startswith("evals/")]
    assert len(tables) == len(shapes) == 5
    for shape, table in zip(shapes, tables, strict=True):
        assert not [name for name in shape.model_fields if not re.search(rf"^\| `{name}[`.]", table, re.MULTILINE)]
    plan, audit, _, _, point_choice = tables
    for table, row in (
        (plan, r"\| `variants\.NAME\.evals` \| list of: string .*\*\*required\*\*"),
        (audit, r"\| `details\.N\.line` \| integer \| \*\*required\*\*"),
        (audit, r"\| `rows` \| integer >= 0, <= 1e\+12 or null \| `null`"),
        (point_choice, r"\| `labels\.seed` \| integer >= -2147483648"),
    ):
        assert re.search(row, table), row
