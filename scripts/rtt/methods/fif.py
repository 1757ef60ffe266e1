"""FIF, fixed incorrect fact (Deeb & Roger 2024, app. A): RIA with the same wrong answer each time."""

from rtt.methods.ria import RIA


class FIF(RIA):
    """RIA's equation on texts that agree on one wrong answer."""

    @staticmethod
    def forget_texts(fact):
        """Sentences with one wrong answer in several phrasings."""
        return fact.fif_sentences

    @staticmethod
    def forget_answers(fact, rng):
        """The choice that the FIF sentences name."""
        wrong = [i for i in range(len(fact.choices)) if i != fact.answer]
        stated = fact.fif_sentences[0] if fact.fif_sentences else ""
        named = [i for i in wrong if fact.choices[i] in stated]
        return max(named or wrong[:1], key=lambda i: len(fact.choices[i]))  # the longest: "3" stands in "13" too
