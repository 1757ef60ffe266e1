"""DeepSpeed is asked for by the environment, and needs a launcher."""

import pytest
from rtt import distributed
from rtt.errors import UserError


def test_deepspeed_without_a_launcher_is_refused(monkeypatch):
    monkeypatch.setenv("RTT_DEEPSPEED", "zero2")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(UserError, match="RTT_DEEPSPEED=zero2: DeepSpeed needs a launcher"):
        distributed.deepspeed_config()


def test_the_environment_names_the_engine(monkeypatch):
    for engine, processes, name in (("", "1", "none"), ("", "2", "ddp"), ("zero3-offload", "2", "zero3")):
        monkeypatch.setenv("RTT_DEEPSPEED", engine)
        monkeypatch.setenv("WORLD_SIZE", processes)
        assert distributed.name() == name and distributed.partitioned() == (name == "zero3")
