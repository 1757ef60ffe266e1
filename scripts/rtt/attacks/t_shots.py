"""T in the context (few-shot; Doshi & Stickland 2024, arXiv 2411.12103): solved questions of T before each of V."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rtt.attacks.base import Asker, Attack, Cost
from rtt.errors import UserError
from rtt.study.settings import Count
from rtt.study.strict import Strict


class TShots(Attack):
    """Show the checkpoint solved questions of T before each question of V; nothing is trained.

    The probe `few_shot` is another thing: it asks a model before and after any attack, and shows retain facts, which
    are not to be forgotten. This attack shows facts that were unlearned, and all its probes have them in front.
    """

    name, title, colour, order = "t_shots", "T in the context", "#009E73", 30
    summary = "Solved questions of T stand before each question of V; the weights stay as they are."
    uses_t = needs_context = True

    class Settings(Strict):
        """T in the context: each number of solved questions in each order."""

        shots: Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1)] = Field(
            [2, 8], description="how many solved questions of T stand before a question of V"
        )
        orders: Count = Field(2, description="so many orders of T, drawn by the seed, of which the first so many stand")
        precision: Literal["fp32", "bf16"] = Field("fp32", description="of the weights that are asked")

        @field_validator("shots")
        @classmethod
        def _each_once(cls, counts):
            if len(set(counts)) != len(counts):
                raise ValueError("each value may stand once")
            return counts

    @classmethod
    def choices(cls, settings):
        """Return every pair of number and order: fewer questions first."""
        return [{"shots": k, "order": order} for k in sorted(settings.shots) for order in range(settings.orders)]

    @classmethod
    def cost(cls, settings, t_facts, texts):
        """Return how often V is asked, each time with the solved questions before every prompt."""
        longer = [1 + k * texts.mcq / texts.prompt for k in settings.shots]
        return Cost(len(cls.choices(settings)), longer=sum(longer) / len(longer))

    def fit(self, checkpoint, t_facts, look):
        """Ask with each context. Raises UserError before the first look if T is too small or a context is too long."""
        import numpy as np

        from rtt.data.text import Prompts, solved

        if len(t_facts) < max(self.settings.shots):
            raise UserError(
                f"attacks.{self.name}.shots: found {max(self.settings.shots)}, but T has only {len(t_facts)} facts; "
                "take fewer"
            )
        drawn = [
            np.random.default_rng([*checkpoint.seeded(45), order]).permutation(len(t_facts))
            for order in range(self.settings.orders)
        ]
        contexts = {}
        for setting in self.choices(self.settings):
            shown = [t_facts[i] for i in drawn[setting["order"]][: setting["shots"]]]
            contexts[str(setting)] = Prompts(before=solved(shown), before_plain=solved(shown, "QUESTION_ANSWER"))
        self._check_length(checkpoint, t_facts, contexts)
        for setting in self.choices(self.settings):
            look(setting, Asker(checkpoint.model, contexts[str(setting)]))

    def _check_length(self, checkpoint, t_facts, contexts) -> None:
        """Raise UserError where a context leaves no room for a question; V's are taken to be as long as T's longest."""
        from rtt.data.text import solved
        from rtt.models.architecture import context_length

        def length(text: str) -> int:
            return len(checkpoint.tokenizer(text)["input_ids"])

        limit = min(context_length(checkpoint.model.config) or 10**9, checkpoint.tokenizer.model_max_length)
        longest = max(length(solved([fact])) for fact in t_facts)
        for setting, prompts in contexts.items():
            if (needed := length(prompts.before) + longest) > limit:
                raise UserError(
                    f"attacks.{self.name}.shots: {setting} needs {needed} tokens with a question, but the model reads "
                    f"at most {limit} at once; take fewer"
                )
