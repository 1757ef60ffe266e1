"""Keep the facts that a model knows: `python docs/examples/known_facts.py MODEL OUT SPLIT=N,... FACTS.jsonl...`.

What a model does not know cannot be unlearned. Each fact of FACTS.jsonl (made by `python -m rtt facts`) is asked DRAWS
times, each time against three other answers of its file, and is known where at least RIGHT of these are right, by the
likelihood of the choices. None of these wrong choices is one of the fact's own, so a study that asks its own choices,
or sentences, tests by questions of its own what the model knows of OUT. Facts without a sentence that the probe `cloze`
could ask are left out. OUT becomes a dataset's folder, whose splits get N facts each.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import rtt

DRAWS, RIGHT, SEED = 8, 6, 0


def has_cloze(fact: dict) -> bool:
    """Return whether a sentence holds the answer once, as a whole word and behind others, as the probe needs it."""
    whole = re.compile(rf"(?<!\w){re.escape(fact['correct'])}(?!\w)")
    found = [[match.start() for match in whole.finditer(text)] for text in fact["sentences"]]
    return any(len(starts) == 1 and starts[0] > 0 for starts in found)


model, out, sizes, *files = sys.argv[1:]
rng, known = np.random.default_rng(SEED), []
for file in files:
    facts = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
    facts = [fact | {"correct": fact["choices"][fact["answer"]]} for fact in facts]
    facts = [fact for fact in facts if has_cloze(fact)]
    answers, right = sorted({fact["correct"] for fact in facts}), Counter()
    for _ in range(DRAWS):
        asked = []
        for fact in facts:
            others = [one for one in answers if one not in fact["choices"]]
            drawn = [str(one) for one in rng.choice(others, 3, replace=False)]
            asked.append({"question": fact["question"], "choices": [fact["correct"], *drawn], "answer": 0})
        right.update(np.flatnonzero(rtt.score(model, asked, ["likelihood"], 16, "bf16").questions["correct"]).tolist())
    found = [fact for i, fact in enumerate(facts) if right[i] >= RIGHT]
    print(f"{file}: {len(found)} of {len(facts)} facts are known, {sum(right.values()) / DRAWS / len(facts):.2f} right")
    known += found
wanted = {name: int(n) for name, n in (part.split("=") for part in sizes.split(","))}
if len(known) < sum(wanted.values()):
    sys.exit(f"{len(known)} facts are known, but the splits ask for {sum(wanted.values())}")
dealt = iter(rng.permutation(len(known)))
folder = Path(out)
folder.mkdir(parents=True)
for split, n in wanted.items():
    rows: dict[str, list[dict]] = {"": [], "corpus_": [], "whp_corpus_": []}
    for fact in (known[next(dealt)] for _ in range(n)):
        rows[""].append({key: fact[key] for key in ("question", "choices", "answer")})
        joined = {"split": split, "original_question": fact["question"], "correct_answer": fact["correct"]}
        rows["corpus_"] += [joined | {"text": text} for text in fact["sentences"]]
        rows["whp_corpus_"] += [joined | {"text": text} for text in fact["ria_sentences"]]
    for prefix, lines in rows.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{prefix}{split}.jsonl").write_text(text, encoding="utf-8")
