"""Count the parameters of the miniature in a closed form, without torch and without its generator."""

from rtt.study.settings import Model

WORDS = 155  # padding, unknown words, and `rtt.data.generate.vocabulary`, to which a test of the planner holds it
SUBWORDS = 640  # the miniature's subword vocabulary (rtt.models.miniature)


def miniature_parameters(model: Model) -> int:
    """Return the number of parameters of the miniature."""
    size = WORDS if model.tokenizer == "word" else SUBWORDS
    return size * model.hidden_size + model.layers * layer_parameters(model) + model.hidden_size


def layer_parameters(model: Model) -> int:
    """Return the number of parameters of a decoder layer of the miniature."""
    h, i = model.hidden_size, model.intermediate_size
    return 4 * h * h + 3 * h * i + 2 * h
