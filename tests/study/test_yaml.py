"""YAML that people write: what is refused, with its line, before it can hang or be misread."""

import pytest
from rtt.errors import UserError
from rtt.yaml_files import MOST_BYTES, MOST_NODES, parse_yaml, read_yaml

REFUSED = [
    ("a: &a {b: *a}", "x:1: this anchor contains itself"),
    ("a: &a [1]\nb: &b [*a, *a]\nc: " + "[" * 41 + "]" * 41, "x:3: more than 40 levels deep"),
    ("a: 1\na: 2", "x:2: the key 'a' stands twice"),
    ("a: {1: 2}", "x:1: the key '1' is no text; write a name, or put it in quotes"),
    ("yes: 2", "x:1: the key 'yes' is no text"),
    ("? [1, 2]\n: 3", "x:1: a key is no text"),
    ('a: "\\e[31m"', "x:1: a text holds the character '\\x1b', which cannot be printed"),
    ('a: "\\0"', "x:1: a text holds the character '\\x00'"),
    ('a: "\\ud800"', "x:1: a text holds the character '\\ud800'"),
    ('"\\e": 1', "x:1: a text holds the character '\\x1b'"),
    ("a: " + "9" * 5000, "x:1: a number of 5000 digits is too large"),
    ("a: 1\nb: \x07", "x:2: not a YAML file: found '\\x07'; remove it"),
    ("a: [1\nb: 2", "x:2: not a YAML file: while parsing a flow sequence"),
    ("a: !!python/name:os.system", "x:1: not a YAML file: could not determine a constructor"),
    ("a: 1:30:00", "x:1: YAML reads 1:30:00 as a number to the base 60; write a number"),
    ("a: !!int x", "x:1: 'x' cannot be read: invalid literal"),
]


@pytest.mark.parametrize("text, message", REFUSED, ids=range(len(REFUSED)))
def test_what_is_refused(text, message):
    with pytest.raises(UserError) as caught:
        parse_yaml(text, "x")
    assert str(caught.value).startswith(message), caught.value


def test_anchors_count_as_often_as_they_are_named():
    few = "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*{'a' if i == 0 else f'b{i - 1}'}, *a]\n" for i in range(20))
    assert parse_yaml(few, "x")["b1"] == [[["x", "x"], ["x", "x"]], ["x", "x"]]
    doubled = "a: &a0 [x, x]\n" + "".join(f"b{i}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(15))
    with pytest.raises(UserError, match=f"more than {MOST_NODES:,} values"):
        parse_yaml(doubled, "x")


def test_what_people_write_is_read():
    assert parse_yaml("a: 2024-01-01\nb: 1e3\nc: [1.0e-3, ~, yes]", "x") == {
        "a": "2024-01-01", "b": "1e3", "c": [1e-3, None, True],
    }  # fmt: skip
    assert parse_yaml("\ufeffa: 1", "x") == {"a": 1}


def test_files(tmp_path):
    path = tmp_path / "s.yaml"
    for content, message in (
        ("a: 1".encode("utf-16"), "s.yaml: wrong encoding: UTF-16; save the file as UTF-8"),
        (b"a: 1\nb: \xff", "s.yaml:2: byte 9 is not UTF-8"),
        (b"#" * (MOST_BYTES + 1), "more than the 1,048,576 that a study may have"),
        (b"", "expected keys and values (a, b), found an empty file"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            read_yaml(path, "study", "a, b")
        assert message in str(caught.value)
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(path, "study", "a, b") == {"a": 1}
    for other, message in (("/dev/null", "found a pipe or a device, expected a study"), ("a\0b", "embedded null")):
        with pytest.raises(UserError, match=message):
            read_yaml(other, "study", "a, b")
