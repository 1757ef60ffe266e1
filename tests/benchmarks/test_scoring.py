"""benchmarks/scoring.py: it runs as documented, and stops where the two sides choose differently.

lm_eval is no dependency of the project: without it its side is skipped, loudly.
"""

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import subword
import torch
from rtt.errors import UserError

pytestmark = pytest.mark.benchmarks
FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
INSTALLED = importlib.util.find_spec("lm_eval") is not None


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("scoring", FOLDER / "scoring.py")
    module = importlib.util.module_from_spec(spec)
    known = sys.modules.pop("training", None)
    sys.modules["scoring"] = module  # dataclasses look their module up
    sys.path.insert(0, str(FOLDER))  # as when the script is started
    spec.loader.exec_module(module)
    sys.path.remove(str(FOLDER))
    deterministic = torch.are_deterministic_algorithms_enabled()
    yield module
    torch.use_deterministic_algorithms(deterministic)
    del sys.modules["scoring"], sys.modules["training"]
    if known:
        sys.modules["training"] = known


def test_quick_scores_the_same_on_both_sides(benchmark, capsys):
    if not INSTALLED:
        why = "NOT TESTED AGAINST lm-evaluation-harness: lm_eval is not installed (benchmarks/scoring.py says how)"
        warnings.warn(why, stacklevel=1)
        pytest.skip(why)
    assert benchmark.main(["--quick"]) == 0
    out = capsys.readouterr().out
    assert out.count("lm_eval / ours") == 2 and out.count("0 of 8 predictions") == 2


@pytest.mark.skipif(INSTALLED, reason="lm_eval is installed")
def test_without_the_harness_it_says_how_to_install_it(benchmark):
    with pytest.raises(UserError, match=r"pip install -r requirements\.lock lm_eval"):
        benchmark.main(["--quick"])


@pytest.mark.parametrize("probe", ["letter", "likelihood"])
def test_our_side_is_the_log_probability_of_each_choice(benchmark, probe):
    """Against each continuation run alone; what is counted: logits of the prompt's last position and of the tails."""
    tokenizer = subword.tokenizer()
    model = subword.model(tokenizer)
    scores, turn = benchmark.run_ours(model, tokenizer, subword.FACTS, probe, batch_size=1)
    fed = logits = 0
    for fact, row in zip(subword.FACTS, scores, strict=True):
        texts = benchmark.continuations(fact, [probe])[probe]
        prompt = subword.ids(tokenizer, texts[0].prompt)
        targets = [subword.ids(tokenizer, text.prompt + text.target)[len(prompt) :] for text in texts]
        expected = [-sum(subword.nats(model, prompt + target)[-len(target) :]) for target in targets]
        assert row == pytest.approx(expected, rel=1e-4)
        tails = {tuple(target[:-1]) for target in targets} - {()}
        fed += len(prompt) + sum(map(len, tails))
        logits += 1 + sum(map(len, tails))
    assert (turn.fed, turn.logits) == (fed, logits)
    assert 0 < turn.without_tokenising < turn.cpu


def test_agreement(benchmark):
    theirs = np.array([[-1.0, -2.0, -3.0, -4.0], [-1.0005, -1.0, -3.0, -4.0]])
    assert benchmark.agree(theirs, theirs) == (0.0, 0, 1)
    tie = theirs.copy()
    tie[1, 0] = -0.9999
    assert benchmark.agree(tie, theirs) == (pytest.approx(0.0006), 1, 1)
    with pytest.raises(UserError, match="1 predictions differ"):
        benchmark.agree(theirs[:, ::-1][:1], theirs[:1])
