"""A training that can be killed and started again: python resuming.py STATE OUT STEPS [SIGTERM_AT [AMID]], plainly or
by torchrun. It scores after every fifth step. AMID 1: the signal comes between two batches of that step's scores.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import parity
import tiny
import torch
from rtt import distributed
from rtt.errors import Stopped, UserError
from rtt.scoring.score import Scorer
from rtt.training import train
from rtt.training.resume import State


def signalled(score_prompts):
    """Return the scoring of a batch, followed by SIGTERM."""

    def score(*args):
        score_prompts(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    return score


def run(folder, out, steps, stop_at=0, amid=0, objective="GD", optimizer="lion"):
    """Train from where `folder` says, and write losses, weights and scores to `out`; exit codes as of a step."""
    train.prepare_torch(0)
    with tempfile.TemporaryDirectory() as raw:
        facts, retain = tiny.facts(Path(raw) / "a"), tiny.facts(Path(raw) / "r", "cities")
    model = tiny.model(0, shape=parity.SHAPE, scale=3.0)
    settings = parity.settings_of(objective, optimizer, steps, 4)
    items, method = parity.items_of(objective, settings, model, facts, retain, steps)
    state = State(folder, {"run": "resuming", "code": "1"})
    scorer = Scorer(tiny.tokenizer(), facts, batch_size=5)

    def action(step, trained):
        if step == stop_at and distributed.rank() == distributed.world() - 1:  # one process alone gets the signal
            if amid:
                scorer._score_prompts = signalled(scorer._score_prompts)
            else:
                os.kill(os.getpid(), signal.SIGTERM)
        if step % 5 == 0 and str(step) not in state.results:
            state.keep(str(step), {"scores": scorer.scores(trained)})

    try:
        losses = train.train(
            model, tiny.tokenizer(), items, method, settings, 0, range(1, steps + 1), action, "unlearning",
            state.training("unlearning"),
        )  # fmt: skip
    except Stopped:
        return 143
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if distributed.is_main():
        weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        torch.save({"losses": losses, "weights": weights, "scores": state.results}, out)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:])))
