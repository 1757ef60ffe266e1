"""The summary for a terminal says what the tables say."""

from report_builder import full_study, manifest, recovery, recovery_row, write_study
from rtt.report.summary import summary


def test_the_summary_is_aligned_and_fits_a_terminal(tmp_path):
    study = write_study(tmp_path / "s", full_study((0, 11)), manifests=[manifest("pretrain", 30)])
    lines = summary(study).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("RTT: accuracy on V") and "retain budget 10 %" in lines[0]
    head, first = lines[1:3]
    assert first.split()[:8] == ["pretrained", "GD", "0", ".97", ".28", ".80", ".95", ".30"]
    for name, value in (("recovery", ".78 ["), ("status", "ok")):
        assert first[head.index(name) :].startswith(value)
    assert any(line.split() == ["pretrain", "1", "30", "60"] for line in lines)
    assert lines[-1] == f"report: {study}/report.html (not written yet)"
    assert any(line.endswith("none_within_budget") for line in lines)


def test_long_names_are_shortened(tmp_path):
    rows = [recovery_row(dataset=f"dataset-{i}-" + "x" * 60, status="none_within_budget") for i in (1, 2)]
    text = summary(write_study(tmp_path / "s", recovery(*rows)))
    assert max(map(len, text.splitlines()[1:4])) <= 120
    assert "pretrained (dataset-1-" in text
    assert "CPU seconds: no manifests found" in text


def test_each_attack_has_a_table_and_other_variants_probes_and_budgets_none(tmp_path):
    rows = [recovery_row(acc_attacked=0.61), recovery_row(attack="quantise", acc_attacked=0.41)]
    rows += [recovery_row(acc_attacked=0.71, **one) for one in ({"variant": "x"}, {"probe": "likelihood"})]
    rows.append(recovery_row(acc_attacked=0.71, retain_budget=0.3))
    text = summary(write_study(tmp_path / "s", recovery(*rows)))
    heads = [line.split(":")[0] for line in text.splitlines() if "accuracy on V" in line]
    found = [line.split()[4] for line in text.splitlines() if line.startswith("pretrained")]
    assert (heads, found) == (["RTT", "quantisation"], [".61", ".41"])


def test_a_measure_that_cannot_be_told_is_words(tmp_path):
    wide = {"recovery_corrected_low": 0.5, "recovery_corrected_high": 1.2, "cannot_tell": "recovery_corrected"}
    text = summary(write_study(tmp_path / "s", recovery(recovery_row("GD", **wide), recovery_row("RMU"))))
    assert "cannot tell [.50, 1.20]" in text and ".86 [.50, 1.20]" not in text and ".86 [.81, .91]" in text
