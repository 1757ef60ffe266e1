"""MCQ scoring: `rtt.scoring.score` against lm-evaluation-harness, the same model and questions, in one run.

    PYTHONPATH=scripts python benchmarks/scoring.py                  # Years and MMLU, a random-weight Llama
    PYTHONPATH=scripts python benchmarks/scoring.py --model FOLDER   # a model's folder
    PYTHONPATH=scripts python benchmarks/scoring.py --quick          # generated questions, seconds, for the tests

lm-evaluation-harness (`pip install lm_eval`, in a virtual environment of its own with this project's packages) gets the
texts of `rtt.scoring.score.continuations` as requests of HFLM.loglikelihood, with its one-token cache on. Its tasks,
metrics and bootstraps are left out, so its time is the least that it takes. Both sides have the same batch size. Ours
is timed with its tokenising (`Scorer(...)`), though a trajectory tokenises once and scores many times; `scores` alone
is the last ratio. Each side is warmed up on a batch, then they take turns, and who begins changes.
"""

import argparse
import logging
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from rtt.errors import UserError
from rtt.models.load import load
from rtt.scoring.score import Scorer, continuations
from rtt.training.train import prepare_torch
from training import MMLU, YEARS, Side, facts_of, llama, ratio, table, tokenizer_of

CASES = ((YEARS, "letter"), (YEARS, "likelihood"), (MMLU, "letter"), (MMLU, "likelihood"))
TOLERANCE = 1e-3  # nats: the best choice must be the same where the two best differ by more
HINT = """lm-evaluation-harness is not installed: there is nothing to compare with. In a virtual environment of its own,
    python -m venv VENV
    VENV/bin/pip install -r requirements.lock lm_eval
and start this script with VENV/bin/python."""


def harness():
    """Return (HFLM, Instance). Raises UserError where lm_eval is not installed."""
    try:
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        raise UserError(f"{HINT}\n({error})") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of a model that is given ready made
    return HFLM, Instance


@dataclass
class Turn(Side):
    """What one side took for all questions once; `logits`: positions whose logits it computed."""

    logits: int = 0
    parts: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("tokenise", "forward"), 0.0))

    @property
    def without_tokenising(self) -> float:
        """CPU seconds without tokenising."""
        return self.cpu - self.parts["tokenise"]


@contextmanager
def watched(turn: Turn, model):
    """Count the model's forward passes: CPU seconds, positions, logits."""
    begins = []

    def before(module, args, kwargs):
        ids = args[0] if args else kwargs["input_ids"]
        turn.fed += ids.numel()
        begins.append(time.process_time())

    def after(module, args, kwargs, output):
        turn.parts["forward"] += time.process_time() - begins.pop()
        turn.logits += output.logits.shape[0] * output.logits.shape[1]

    hooks = [
        model.register_forward_pre_hook(before, with_kwargs=True),
        model.register_forward_hook(after, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def run_ours(model, tokenizer, facts, probe: str, batch_size: int) -> tuple[np.ndarray, Turn]:
    """Return (log p in nats (questions, 4), what it took)."""
    turn = Turn()
    prepare_torch(0)
    with watched(turn, model), turn.measured():
        with turn.part("tokenise"):
            scorer = Scorer(tokenizer, facts, [probe], batch_size=batch_size)
        values = scorer.scores(model)
    return np.array(values).reshape(len(facts), -1), turn


def run_harness(model, tokenizer, facts, probe: str, batch_size: int) -> tuple[np.ndarray, Turn]:
    """Return the same of lm-evaluation-harness. Raises UserError where it is not installed."""
    HFLM, Instance = harness()
    turn = Turn()
    torch.use_deterministic_algorithms(False)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, device=str(model.device))
    score = lm._loglikelihood_tokens
    inside = Turn()

    def scored(*args, **kwargs):
        with inside.measured():
            return score(*args, **kwargs)

    lm._loglikelihood_tokens = scored
    with watched(turn, model), turn.measured():
        requests = [
            Instance("loglikelihood", {}, (text.prompt, text.target), i)
            for i, fact in enumerate(facts)
            for text in continuations(fact, [probe])[probe]
        ]
        answers = lm.loglikelihood(requests, disable_tqdm=True)
    turn.parts["tokenise"] = turn.cpu - inside.cpu
    return np.array([value for value, _ in answers]).reshape(len(facts), -1), turn


def agree(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, int, int]:
    """Return (largest difference in nats, predictions that differ, questions whose two best are within TOLERANCE).

    Raises UserError when a prediction differs where it is no near tie.
    """
    first, second = np.sort(theirs, axis=1)[:, -1], np.sort(theirs, axis=1)[:, -2]
    close = first - second <= TOLERANCE
    other = ours.argmax(1) != theirs.argmax(1)
    if (other & ~close).any():
        raise UserError(f"{int((other & ~close).sum())} predictions differ: the two sides scored other texts")
    return float(abs(ours - theirs).max()), int(other.sum()), int(close.sum())


def compare(model, tokenizer, facts, probe: str, batch_size: int, repeats: int) -> dict:
    """Return {"ours", "lm_eval": a list of Turns, "agreement": as `agree` gives it, of the last turns}."""
    found = {"ours": [], "lm_eval": []}
    runs = {"ours": run_ours, "lm_eval": run_harness}
    values = {}
    for run in runs.values():  # to warm up
        run(model, tokenizer, facts[:batch_size], probe, batch_size)
    for repeat in range(repeats):
        for name in ("ours", "lm_eval") if repeat % 2 else ("lm_eval", "ours"):
            values[name], turn = runs[name](model, tokenizer, facts, probe, batch_size)
            found[name].append(turn)
    return found | {"agreement": agree(values["ours"], values["lm_eval"])}


def arguments(asked: list[str] | None) -> argparse.Namespace:
    """Parse the command line; `--quick` replaces what decides the size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest size, on generated questions")
    parser.add_argument("--model", help="folder of a model; none: random weights, a BPE of the texts")
    parser.add_argument("--vocabulary", type=int, default=8192, help="tokens of that BPE")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch", type=int, default=16, help="rows per forward pass, on both sides")
    parser.add_argument("--questions", type=int, default=300, help="spread evenly over the dataset's")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(asked)
    if args.quick:
        args.vocabulary, args.hidden, args.layers, args.questions, args.repeats = 400, 16, 2, 8, 2
    return args


def main(asked: list[str] | None = None) -> int:
    """Print the comparison for each dataset and scoring. Raises UserError without lm_eval."""
    args = arguments(asked)
    harness()
    cases = (("birth_years_a", "letter"), ("birth_years_a", "likelihood")) if args.quick else CASES
    for dataset, probe in cases:
        every = facts_of(dataset)
        if args.model:
            model, tokenizer = load(args.model)
        else:
            tokenizer = tokenizer_of(None, every, args.vocabulary)
            model = llama(tokenizer, args.hidden, args.layers)
        n = min(args.questions, len(every))
        facts = [every[i * len(every) // n] for i in range(n)]
        found = compare(model, tokenizer, facts, probe, args.batch, args.repeats)
        turns = {name: found[name] for name in ("ours", "lm_eval")}
        difference, other, close = found["agreement"]
        shape = f"{args.model or 'random weights'}: hidden {model.config.hidden_size}, {len(tokenizer)} tokens"
        print(f"{dataset}, {probe}: {n} questions, batch {args.batch}; {shape}; {torch.get_num_threads()} thread(s)")
        print(table(turns))
        print("  positions whose logits are computed: " + ", ".join(f"{k} {v[0].logits}" for k, v in turns.items()))
        pair = found["lm_eval"], found["ours"]
        print(
            f"  lm_eval / ours, median of {args.repeats} pairs: CPU {ratio(*pair, 'cpu')}, "
            f"wall {ratio(*pair, 'wall')}, CPU without tokenising {ratio(*pair, 'without_tokenising')}; "
            f"scores differ by {difference:.1e} nats at most, {other} of {n} predictions ({close} near ties)"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(str(error))
