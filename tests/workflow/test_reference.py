"""The reference in docs/reference is what the code says."""

import importlib.util

import pytest
from conftest import ROOT
from rtt.__main__ import main

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
