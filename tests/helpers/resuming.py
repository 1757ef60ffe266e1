"""A training that can be killed and started again: python resuming.py STATE OUT STEPS [SIGNAL_AT [AMID [RELEASED]]].

It runs plainly, by torchrun, or forked (`Forked`). It scores after every fifth step. SIGTERM comes before that step's
scores, with AMID 1 between two batches of them. With RELEASED 1 it trains in bf16_kahan with gradient release; then
with AMID 15 (SIGTERM) or 9 (SIGKILL) that signal comes amid the step's backward pass.
"""

import gc
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import parity
import tiny
import torch
from rtt import distributed
from rtt.errors import Stopped, UserError
from rtt.scoring.score import Scorer
from rtt.training import kahan, train
from rtt.training.resume import State


def signalled(score_prompts):
    """Return the scoring of a batch, followed by SIGTERM."""

    def score(*args):
        score_prompts(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    return score


def signalled_amid(step, number):
    """Let a signal come amid the backward pass of a step, when half of the weights are updated."""
    update, done = kahan.Kahan.update, []

    def updated(self, parameter):
        update(self, parameter)
        done.append(self.state[parameter]["step"])
        if done.count(step) == len(self.param_groups[0]["params"]) // 2 and done[-1] == step:
            os.kill(os.getpid(), number)

    kahan.Kahan.update = updated


def run(folder, out, steps, stop_at=0, amid=0, released=0, objective="GD", optimizer="lion"):
    """Train from where `folder` says, and write losses, weights and scores to `out`; exit codes as of a step."""
    gc.freeze()  # as tests/conftest.py does
    train.prepare_torch(0)
    with tempfile.TemporaryDirectory() as raw:
        facts, retain = tiny.facts(Path(raw) / "a"), tiny.facts(Path(raw) / "r", "cities")
    model = tiny.model(0, shape=parity.SHAPE, scale=3.0)
    settings = parity.settings_of(objective, optimizer, steps, 4)
    if released:
        model, given = model.bfloat16(), {"precision": "bf16_kahan", "gradient_release": True, "max_grad_norm": None}
        settings = type(settings)(**settings.model_dump() | given)
        if amid:
            signalled_amid(stop_at, amid)
    items, method = parity.items_of(objective, settings, model, facts, retain, steps)
    state = State(folder, {"run": "resuming", "code": "1"})
    scorer = Scorer(tiny.tokenizer(), facts, batch_size=5)

    def action(step, trained):
        if (
            step == stop_at and not released and distributed.rank() == distributed.world() - 1
        ):  # one process alone gets the signal
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


def child(words, environment, errors):
    """Run in a forked process: exit as the script does, with standard error in a file."""
    os.environ.update(environment)
    with open(errors, "a", buffering=1) as sys.stderr:
        sys.exit(run(words[0], words[1], *map(int, words[2:])))


class Forked:
    """The script in children of a server that has imported torch, so that a start takes no time; used as a Popen.

    Several processes find each other as torchrun's do, but each has its own exit code.
    """

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["resuming"])

    def __init__(self, words, environment, processes=1):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._begin_server()
        self.errors = Path(tempfile.mkstemp(prefix="resuming-")[1])
        self.children = []
        for rank in range(processes):
            place = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            place = {name: str(value) for name, value in place.items()} if processes > 1 else {}
            place |= {"WORLD_SIZE": str(processes)} if processes > 1 else {}
            self.children.append(
                self.server.Process(target=child, args=(words, environment | place, str(self.errors)))
            )  # fmt: skip
        for one in self.children:
            one.start()
        self.pid = self.children[0].pid

    @staticmethod
    def _begin_server():
        """Start the server if there is none, where it finds our modules: it does not take over sys.path."""
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
        forkserver.ensure_running()
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before

    def poll(self):
        """Return the exit code, None while it runs."""
        return self.children[0].exitcode

    @property
    def returncode(self):
        """The exit code; of several processes it must be the same."""
        codes = {one.exitcode for one in self.children}
        assert len(codes) == 1, codes
        return codes.pop()

    def communicate(self, timeout=None):
        """Wait for the end; return (nothing, standard error)."""
        for one in self.children:
            one.join(timeout)
            assert one.exitcode is not None, f"still at work after {timeout} s"
        error = self.errors.read_text()
        self.errors.unlink()
        return "", error


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), *map(int, sys.argv[4:])))
