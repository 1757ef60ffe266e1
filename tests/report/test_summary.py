"""The summary for a terminal says what the tables say."""

from report_builder import full_study, manifest, recovery, recovery_row, write_study
from rtt.report.summary import summary


def test_the_summary_is_aligned_and_fits_a_terminal(tmp_path):
    study = write_study(tmp_path / "s", full_study((0, 11)), manifests=[manifest("pretrain", 30)])
    lines = summary(study).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[:4] == [
        "pretrained: forget accuracy .97 before; 6 of 8 results count as unlearned",
        "taught: forget accuracy .97 before; 4 of 8 results count as unlearned",
        "taught_same_data: forget accuracy .97 before; all 8 results count as unlearned",
        "",
    ]
    assert lines[4].startswith("RTT: accuracy on V") and "retain budget 10 %" in lines[4]
    head, first = lines[5:7]
    assert first.split()[:7] == ["pretrained", "GD", "0", ".28", ".80", ".95", ".30"]
    for name, value in (("recovery", ".78 ["), ("counts", "yes"), ("status", "ok")):
        assert first[head.index(name) :].startswith(value)
    assert any(line.split() == ["pretrain", "1", "30", "60"] for line in lines)
    assert lines[-1] == f"report: {study}/report.html (not written yet)"
    assert any(line.endswith("none_within_budget") for line in lines)


def test_the_oracle_has_a_column_where_there_is_one(tmp_path):
    table = full_study((0, 11)).assign(acc_oracle_attacked=0.33).replace("undefined", "original_not_learned")
    lines = summary(write_study(tmp_path / "s", table)).splitlines()
    head, first = lines[5:7]
    assert first[head.index("oracle") :].startswith(".33") and max(map(len, lines)) <= 120


def test_a_control_attack_goes_last_and_has_no_recovery(tmp_path):
    rows = [recovery_row(attack="RTT_permuted", acc_attacked=0.41), recovery_row(acc_attacked=0.61)]
    rows += [recovery_row("RMU", status="not_known"), recovery_row("GD", "taught", status="not_known")]
    lines = summary(write_study(tmp_path / "s", recovery(*rows))).splitlines()
    assert (
        "taught: forget accuracy .97 before; none of 1 method counts as unlearned: the original does not know"
        in lines[1]
    )
    heads = [line for line in lines if "look choice nested" in line]
    assert heads[0].startswith("RTT: accuracy on V and floor-corrected recovery")
    assert heads[1].startswith("RTT, wrong answers: a control: accuracy on V;")
    last = lines[lines.index(heads[1]) + 2]
    assert " .41 " in last and " – " in last and "[" not in last


def test_long_names_are_shortened(tmp_path):
    rows = [recovery_row(dataset=f"dataset-{i}-" + "x" * 60, status="none_within_budget") for i in (1, 2)]
    text = summary(write_study(tmp_path / "s", recovery(*rows)))
    assert max(map(len, text.splitlines()[:7])) <= 120
    assert "pretrained (dataset-1-" in text
    assert "CPU seconds: no manifests found" in text


def test_each_attack_has_a_table_and_other_variants_probes_and_budgets_none(tmp_path):
    rows = [recovery_row(acc_attacked=0.61), recovery_row(attack="quantise", acc_attacked=0.41)]
    rows += [recovery_row(acc_attacked=0.71, **one) for one in ({"variant": "x"}, {"probe": "likelihood"})]
    rows.append(recovery_row(acc_attacked=0.71, retain_budget=0.3))
    text = summary(write_study(tmp_path / "s", recovery(*rows)))
    heads = [line.split(":")[0] for line in text.splitlines() if "accuracy on V" in line]
    found = [line.split()[3] for line in text.splitlines() if line.startswith("pretrained ")]
    assert (heads, found) == (["RTT", "quantisation"], [".61", ".41"])


def test_a_measure_that_cannot_be_told_is_words(tmp_path):
    wide = {"recovery_corrected_low": 0.5, "recovery_corrected_high": 1.2, "cannot_tell": "recovery_corrected"}
    text = summary(write_study(tmp_path / "s", recovery(recovery_row("GD", **wide), recovery_row("RMU"))))
    assert "cannot tell [.50, 1.20]" in text and ".86 [.50, 1.20]" not in text and ".86 [.81, .91]" in text
