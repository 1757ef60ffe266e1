"""Numbers depend on the spec, not on the device count or the code's version (docs/devices.md).

Two real processes (gloo), plainly and under ZeRO 1, 2 and 3, are compared with one process for every objective and both
optimizers in fp32. One process must give the losses of golden_losses.json to the bit; where a change of the numbers is
intended, `python tests/training/test_parity.py` writes that file anew.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from parity_runs import ADAMW, LAUNCH, STEPS, WORKER, compare, trained

GOLDEN = Path(__file__).parents[1] / "data" / "golden_losses.json"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("parity"), "none", 1)


def golden_of(one: dict) -> dict:
    """Return what golden_losses.json holds."""
    return {"made_with": made_with(), "losses": {case: found["losses"] for case, found in one.items()}}


def made_with() -> dict:
    return {"torch": torch.__version__.split("+")[0], "machine": platform.machine()}


def test_a_refactoring_keeps_every_loss_to_the_bit(one):
    golden = json.loads(GOLDEN.read_text())
    if golden["made_with"] != made_with():
        why = f"NOT COMPARED with golden_losses.json: made with {golden['made_with']}, this is {made_with()}"
        warnings.warn(why, stacklevel=1)
        pytest.skip(why)
    now = golden_of(one)["losses"]
    assert list(now) == list(golden["losses"]) and all(len(losses) == STEPS for losses in now.values())
    for case, losses in golden["losses"].items():
        for step, (was, found) in enumerate(zip(losses, now[case], strict=True), 1):
            assert found == was, f"{case} step {step}"


# Without `make test-full`, ZeRO has each objective once, each optimizer, and a null row; DDP has all cases.
FEW = ("GD-adamw", "RMU-lion", "RIA-adamw", "FIF-lion", "RTT-adamw", "RMU-adamw-3")


@pytest.mark.parametrize(
    ("engine", "cases"),
    [
        ("ddp", ()),
        *((engine, FEW) for engine in ("zero1", "zero2", "zero3")),
        *(pytest.param(engine, (), marks=pytest.mark.full) for engine in ("zero1", "zero2", "zero3")),
    ],
)
def test_two_processes_give_the_numbers_of_one(engine, cases, one, tmp_path):
    micro = "1" if engine == "zero2" else ""
    two = trained(tmp_path, engine, 2, micro, cases, packing=engine == "zero1")
    assert list(two) == list(cases or one)
    for case in two:
        compare(case, one[case], two[case])


def test_packed_texts_give_the_numbers_of_padded_ones(one, tmp_path):
    packed = trained(tmp_path, "none", 1, packing=True)
    for case in packed:
        compare(case, one[case], packed[case])


LONG = 200


@pytest.fixture(scope="module")
def one_long(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("parity"), "none", 1, cases=ADAMW, steps=LONG)


@pytest.mark.full
@pytest.mark.parametrize("micro", ["", "1"])
@pytest.mark.parametrize("engine", ["ddp", "zero1", "zero2", "zero3"])
def test_adamw_to_the_end(engine, micro, one_long, tmp_path):
    two = trained(tmp_path, engine, 2, micro, ADAMW, LONG)
    for case in two:
        compare(case, one_long[case], two[case], later=1e-4)


def test_the_comparison_sees_another_seed(one):
    """The bounds are not so wide that other numbers pass."""
    with pytest.raises(AssertionError):
        compare("GD-adamw", one["GD-adamw"], one["RIA-adamw"])
    with pytest.raises(AssertionError):
        compare("RTT-lion", one["RTT-lion"], one["RTT-lion-3"])


def test_a_deepspeed_file_that_is_not_there(tmp_path):
    environment = os.environ | {"RTT_DEEPSPEED": "zero9", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*LAUNCH, str(WORKER), str(tmp_path / "x"), "2"], env=environment, capture_output=True, text=True
    )
    assert done.returncode and "deepspeed: zero9: no such file; expected zero1, zero2, zero3" in done.stderr


def test_deepspeed_without_a_launcher(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "WORLD_SIZE"} | {"RTT_DEEPSPEED": "zero2"}
    done = subprocess.run(
        [sys.executable, str(WORKER), str(tmp_path / "x"), "2"], env=environment, capture_output=True, text=True
    )
    assert done.returncode and "needs a launcher" in done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = golden_of(trained(folder, "none", 1))
    rows = ",\n".join(
        f'  "{case}": [\n   ' + ",\n   ".join(map(json.dumps, losses)) + "\n  ]"
        for case, losses in made["losses"].items()
    )
    head = json.dumps(made["made_with"])
    GOLDEN.write_text(f'{{\n "made_with": {head},\n "losses": {{\n{rows}\n }}\n}}\n')
