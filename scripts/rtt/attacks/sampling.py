"""Sampling (leak@k, arXiv 2511.04934): does one of k sampled answers state what the likeliest one hides?"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rtt.attacks.base import Asker, Attack, Cost
from rtt.study.settings import Positive
from rtt.study.strict import Strict

PURPOSE = 46  # of the generator's seed


def samples(model, tokenizer, prompts, uniforms, temperature: float, batch_size: int = 64) -> list[list[str]]:
    """Return the texts that a model says after each prompt, one for each row of the prompt's uniforms.

    prompts: texts. uniforms: of each prompt (k, most tokens) in [0, 1); each token is where the cumulated probabilities
    at the temperature, by the tokens' numbers, first exceed its own one. So a text depends on its prompt and its own
    uniforms, and neither on the batch nor on how many others are sampled. Raises `rtt.errors.Stopped` after SIGTERM,
    between two batches.
    """
    from itertools import groupby

    import torch
    from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

    from rtt.data.text import Text, encode
    from rtt.errors import Stopped
    from rtt.training.resume import Terminated

    class Inverse(LogitsProcessor):
        """Leave one token: the one at which the cumulated probabilities exceed the row's uniform of this step."""

        def __init__(self, drawn):
            self.drawn, self.step = drawn, 0

        def __call__(self, input_ids, scores):
            total = (scores.double() / temperature).softmax(-1).cumsum(-1)
            goal = self.drawn[:, self.step, None].to(total) * total[:, -1:]
            token = torch.searchsorted(total, goal, right=True).clamp_max(scores.shape[-1] - 1)
            self.step += 1
            return torch.full_like(scores, -torch.inf).scatter(1, token, 0.0)

    own = model.generation_config
    ends = own.eos_token_id if own.eos_token_id is not None else tokenizer.eos_token_id
    config = GenerationConfig(
        do_sample=False, max_new_tokens=uniforms[0].shape[1], eos_token_id=ends, pad_token_id=tokenizer.pad_token_id,
        bos_token_id=own.bos_token_id,
    )  # fmt: skip
    rows = [
        (encode(tokenizer, Text("", prompt))["input_ids"], at, one)
        for at, prompt in enumerate(prompts)
        for one in range(len(uniforms[at]))
    ]
    rows.sort(key=lambda row: len(row[0]))
    batches = [
        group[at : at + batch_size]
        for group in (list(group) for _, group in groupby(rows, key=lambda row: len(row[0])))
        for at in range(0, len(group), batch_size)
    ]
    device, said = next(model.parameters()).device, {}
    model.eval()
    model.generation_config = config  # what the model's own has, and this one leaves open, would be used otherwise
    try:
        for batch in batches:
            if Terminated.together():
                raise Stopped
            ids = torch.tensor([row for row, _, _ in batch], device=device)
            drawn = torch.stack([torch.as_tensor(uniforms[at][one]) for _, at, one in batch]).to(device)
            with torch.no_grad():
                new = model.generate(
                    ids, attention_mask=torch.ones_like(ids), logits_processor=LogitsProcessorList([Inverse(drawn)])
                )[:, ids.shape[1] :]
            texts = tokenizer.batch_decode(new, skip_special_tokens=True)
            said |= {(at, one): text for (_, at, one), text in zip(batch, texts, strict=True)}
    finally:
        model.generation_config = own
    return [[said[at, one] for one in range(len(drawn))] for at, drawn in enumerate(uniforms)]


class Sampling(Attack):
    """Let the checkpoint say an answer k times; nothing is trained, and no fact of T is used.

    A question is answered right where at least one of the first k samples states the right choice. It is that plain
    share, not the unbiased estimate of leak@k from more than k samples. A guesser gains with k, too, so the attack has
    a floor of its own, and is never the strongest.
    """

    name, title, colour, order = "sampling", "sampling", "#999999", 90
    summary = "The model says an answer several times, and one of them may be what the likeliest one hides."
    answers = ("sampled",)
    in_strongest = False

    class Settings(Strict):
        """Sampling: each number of samples at each temperature."""

        samples: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1)] = Field(
            [1, 4],
            description="how many answers are sampled; fewer are the first of the most. Of four choices a guesser hits "
            ".68 with 4, and .99 with 16",
        )
        temperatures: Annotated[list[Positive], Field(min_length=1)] = [1.0]
        tokens: Annotated[int, Field(ge=1, le=1000)] = Field(12, description="the most tokens of an answer")
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights that are asked")

        @model_validator(mode="after")
        def _each_once(self):
            for name in ("samples", "temperatures"):
                if len(set(getattr(self, name))) != len(getattr(self, name)):
                    raise ValueError(f"{name}: each value may stand once")
            return self

    @classmethod
    def choices(cls, settings):
        """Return every pair of samples and temperature: fewer samples first, then lower temperatures."""
        return [{"k": k, "temperature": t} for k in sorted(settings.samples) for t in sorted(settings.temperatures)]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return a look for each setting; one generation at each temperature serves all numbers of samples."""
        looks, read = len(cls.choices(settings)), texts.question + settings.tokens - 1
        whole = len(settings.temperatures) * max(settings.samples) * read
        return Cost(looks, longer=0.0, more=whole)

    def fit(self, checkpoint, t_facts, look):
        """Sample the most answers once for each temperature, when they are first asked for."""
        from functools import cache

        @cache
        def said(prompts, temperature):
            drawn = [self._uniforms(checkpoint, prompt) for prompt in prompts]
            return samples(checkpoint.model, checkpoint.tokenizer, prompts, drawn, temperature)

        def first(k, temperature):
            return lambda prompts: [texts[:k] for texts in said(tuple(prompts), temperature)]

        for setting in self.choices(self.settings):
            look(setting, Asker(sample=first(setting["k"], setting["temperature"])))

    def _uniforms(self, checkpoint, prompt: str):
        """Return (samples, tokens) in [0, 1), the same for a prompt wherever it stands, and for every checkpoint."""
        import hashlib

        import numpy as np

        own = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8])
        rng = np.random.default_rng([*checkpoint.seeded(PURPOSE), own])
        return rng.random((max(self.settings.samples), self.settings.tokens))
