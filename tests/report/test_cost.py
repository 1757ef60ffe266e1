"""What the manifests say about time, tokens, energy and provenance."""

from report_builder import manifest
from rtt.report import cost


def test_the_ledger_orders_stages_and_counts_what_is_unknown():
    rows = cost.ledger(
        [manifest("attack", 5), manifest("zeta", 1), manifest("pretrain", 7), manifest("attack", None, wall_seconds=2)]
    )
    assert [(row.stage, row.processes, row.cpu_seconds, row.wall_seconds, row.unknown) for row in rows] == [
        ("pretrain", 1, 7, 14, 0), ("attack", 2, 5, 12, 1), ("zeta", 1, 1, 2, 0), ("all", 4, 13, 28, 1),
    ]  # fmt: skip
    assert (rows[1].cpu_text, rows[1].gpu_text, rows[1].tokens_text) == ("5 s (1 unknown)", "none", "–")
    assert cost.ledger([]) == []


def test_gpu_time_and_the_energy_that_it_can_have_taken():
    h100 = manifest(
        "attack", 10, wall_seconds=3600, world_size=2, tokens=5000, hardware={"gpu": "NVIDIA H100 80GB HBM3"}
    )
    strange = manifest("attack", 10, wall_seconds=60, hardware={"gpu": "Some GPU"})
    attack, every = cost.ledger([h100, strange])
    assert (attack.gpu_seconds, attack.tokens_text, every.gpu_seconds) == (7260, "5 000", 7260)
    text = cost.energy([h100, strange])
    assert "at most 1.4 kWh" in text  # 2 h of 700 W
    assert "The energy of Some GPU is not known." in text
    assert "kWh" not in cost.energy([manifest()]) and cost.energy([]) == ""
    assert (cost.time_text(7199), cost.time_text(7200), cost.time_text(36e6)) == ("7 199 s", "2.0 h", "10 000.0 h")


def test_provenance_lists_each_value_once():
    found = dict(cost.provenance([manifest(), manifest(git_dirty=True), manifest(git_commit=None)]))
    assert found["Git commit"] == "c0ffee, c0ffee (with changes not committed), unknown"
    assert found["Hardware"] == "cpus 2, machine x86_64"
    assert found["Packages"] == "torch 2.9.1"


def test_the_commit_to_check_out_is_the_one_that_made_everything():
    assert cost.commit([manifest(), manifest()]) == "c0ffee"
    for other in ({"git_commit": "b"}, {"git_commit": None}, {"git_dirty": True}):
        assert cost.commit([manifest(), manifest(**other)]) is None
