"""Retain data: the splits that a spec names, and no others."""

from types import SimpleNamespace

import pytest
import tiny
from rtt.data.facts import write_facts
from rtt.data.retain import read_retain
from rtt.errors import UserError

RETAIN = SimpleNamespace(learn=None, learn_splits=["train"], held_out_splits=["held_out"])  # what a spec says


def test_a_retain_split_that_the_data_lacks_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    write_facts(path, tiny.facts(tmp_path, "cities"))
    args = SimpleNamespace(retain=path, held_out=path)
    learn, held_out = read_retain(RETAIN, args)
    assert {fact.split for fact in learn} == {"train"} and {fact.split for fact in held_out} == {"held_out"}
    message = r"r\.jsonl: retain splits: found no fact in split_9; expected some of held_out, train"
    for key in ("learn_splits", "held_out_splits"):
        wrong = SimpleNamespace(**vars(RETAIN) | {key: ["train", "split_9"]})
        with pytest.raises(UserError, match=message):
            read_retain(wrong, args)
