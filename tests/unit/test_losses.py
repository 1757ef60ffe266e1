"""The text loss against float64 loops over each text alone."""

import copy

import pytest
import tiny
import torch
from rtt.data.facts import Fact
from rtt.losses import masked_mean, plain_loss, text_loss
from rtt.text import collate, encode, mcq, sentence


def examples(seed=0, n=5):
    """Texts of 3 to 9 tokens, with prompts of 0 to 2."""
    g = torch.Generator().manual_seed(seed)
    lengths = [3, 9, 4, 7, 5, 6][:n]
    made = []
    for i, length in enumerate(lengths):
        ids = torch.randint(2, len(tiny.tokenizer()), (length,), generator=g).tolist()
        made.append(tiny.plain(ids[: i % 3], ids[i % 3 :]))
    return made


@pytest.mark.parametrize("double, tolerance", [(True, 1e-9), (False, 1e-5)])
def test_text_loss_is_the_mean_over_texts_of_the_mean_over_counted_tokens(double, tolerance):
    model = tiny.model(double=double, scale=8)
    rows = examples()
    expected = sum(tiny.reference_nats(model, row) for row in rows) / len(rows)
    found = text_loss(model, collate(rows, 0)).item()
    assert found == pytest.approx(expected, rel=tolerance)
    counted = [sum(label != -100 for label in row["labels"][1:]) for row in rows]
    per_token = sum(tiny.reference_nats(model, row) * n for row, n in zip(rows, counted, strict=True)) / sum(counted)
    assert abs(expected - per_token) > 1e-3  # the two means differ here, so the test can tell them apart


def test_the_pad_token_does_not_matter():
    model = tiny.model(double=True, scale=8)
    rows = examples()
    losses = {text_loss(model, collate(rows, pad)).item() for pad in (0, 1, 77)}
    assert max(losses) - min(losses) < 1e-12


def test_padding_gets_no_gradient():
    shape = tiny.SHAPE
    torch.manual_seed(0)
    model = tiny.miniature(shape, len(tiny.tokenizer()))
    embedding = torch.nn.Embedding(
        len(tiny.tokenizer()), shape.hidden_size
    )  # untied: else the softmax reaches each row
    model.set_input_embeddings(embedding)
    rows = examples()
    text_loss(model, collate(rows, 5)).backward()
    used = {token for row in rows for token in row["input_ids"]}
    assert 5 not in used
    gradient = embedding.weight.grad
    assert gradient[5].abs().max() == 0
    assert all(gradient[row["input_ids"][-2]].abs().max() > 0 for row in rows)


def test_equal_parts_average_to_the_whole():
    model = tiny.model(double=True, scale=8)
    rows = examples(n=6)
    whole = text_loss(model, collate(rows, 0)).item()
    for size in (1, 2, 3):
        parts = [text_loss(model, collate(rows[i : i + size], 0)).item() for i in range(0, 6, size)]
        assert sum(parts) / len(parts) == pytest.approx(whole, rel=1e-12)


def test_gradients_of_equal_parts_average_to_the_whole():
    model, rows = tiny.model(double=True), examples(n=6)

    def gradient(parts):
        copied = copy.deepcopy(model)
        sum(text_loss(copied, collate(part, 0)) / len(parts) for part in parts).backward()
        return torch.cat([parameter.grad.flatten() for parameter in copied.parameters()])

    assert torch.allclose(gradient([rows]), gradient([rows[:3], rows[3:]]), rtol=1e-9, atol=1e-14)


def test_prompt_tokens_are_not_counted():
    model = tiny.model(double=True, scale=8)
    ids = list(range(10, 18))
    whole, target = (
        text_loss(model, collate([tiny.plain([], ids)], 0)),
        text_loss(model, collate([tiny.plain(ids[:5], ids[5:])], 0)),
    )
    assert target.item() == pytest.approx(tiny.reference_nats(model, tiny.plain(ids[:5], ids[5:])), rel=1e-9)
    assert abs(whole.item() - target.item()) > 1e-3


@pytest.mark.parametrize("choices", [["RNA.", "DNA.", "A. B.", "C"], ["A.", "B.", "D. A.", "Answer: B."]])
def test_letters_inside_answers_do_not_move_the_mask(choices):
    """The authors find the answer by the last "A."-"D." in the text; here offsets decide."""
    fact = Fact("d/s/001", "d", "s", "Ada Abbas?", choices, 1, choices, ["x"], ["y"], ["z"], {"file": "f", "line": 1})
    model = tiny.model(double=True, scale=8)
    example = encode(tiny.tokenizer(), mcq(fact, loss="answer"))
    words = " ".join(f"B. {choices[1]}".replace(".", " ").replace(":", " ").split()).split()
    ids = tiny.tokenizer().convert_tokens_to_ids(words)
    assert [label for label in example["labels"] if label != -100] == ids
    assert example["labels"] == [-100] * (len(example["labels"]) - len(ids)) + ids
    loss = text_loss(model, collate([example, encode(tiny.tokenizer(), sentence("Ada Abbas was born"))], 0)).item()
    alone = [
        tiny.reference_nats(model, example),
        tiny.reference_nats(model, tiny.plain([], [*ids_of("Ada Abbas was born")])),
    ]
    assert loss == pytest.approx(sum(alone) / 2, rel=1e-9)


def ids_of(text):
    return tiny.tokenizer().convert_tokens_to_ids(text.split())


def test_a_text_without_a_counted_token_adds_nothing_and_no_nan():
    values = torch.tensor([[1.0, 2.0], [5.0, 7.0]])
    assert masked_mean(values, torch.tensor([[True, True], [False, False]])).item() == 0.75


def test_plain_loss_is_the_text_loss():
    model, batch = tiny.model(), collate(examples(), 0)
    assert plain_loss(model, batch)["loss"].item() == text_loss(model, batch).item()
