"""The text loss against float64 loops over each text alone."""

import copy

import numpy as np
import pytest
import subword
import tiny
import torch
from rtt.data.facts import Fact
from rtt.data.text import LOSSES, encode, mcq, sentence, training_texts
from rtt.training import losses, packing
from rtt.training.collate import collate
from rtt.training.losses import masked_mean, text_loss


@pytest.mark.parametrize("double, tolerance", [(True, 1e-9), (False, 1e-5)])
def test_text_loss_is_the_mean_over_texts_of_the_mean_over_counted_tokens(double, tolerance):
    model = tiny.model(double=double, scale=8)
    rows = tiny.examples()
    expected = sum(tiny.reference_nats(model, row) for row in rows) / len(rows)
    found = text_loss(model, collate(rows, 0)).item()
    assert found == pytest.approx(expected, rel=tolerance)
    counted = [sum(label != -100 for label in row["labels"][1:]) for row in rows]
    per_token = sum(tiny.reference_nats(model, row) * n for row, n in zip(rows, counted, strict=True)) / sum(counted)
    assert abs(expected - per_token) > 1e-3  # the two means differ here, so the test can tell them apart


def test_the_pad_token_does_not_matter():
    model = tiny.model(double=True, scale=8)
    rows = tiny.examples()
    losses = {text_loss(model, collate(rows, pad)).item() for pad in (0, 1, 77)}
    assert max(losses) - min(losses) < 1e-12


def test_padding_tokens_get_no_gradient():
    shape = tiny.SHAPE
    torch.manual_seed(0)
    model = tiny.miniature(shape, len(tiny.tokenizer()))
    embedding = torch.nn.Embedding(
        len(tiny.tokenizer()), shape.hidden_size
    )  # untied: else the softmax reaches each row
    model.set_input_embeddings(embedding)
    rows = tiny.examples()
    text_loss(model, collate(rows, 5)).backward()
    used = {token for row in rows for token in row["input_ids"]}
    assert 5 not in used
    gradient = embedding.weight.grad
    assert gradient[5].abs().max() == 0
    assert all(gradient[row["input_ids"][-2]].abs().max() > 0 for row in rows)


def test_equal_parts_average_to_the_whole():
    model = tiny.model(double=True, scale=8)
    rows = tiny.examples(n=6)
    whole = text_loss(model, collate(rows, 0)).item()
    for size in (1, 2, 3):
        parts = [text_loss(model, collate(rows[i : i + size], 0)).item() for i in range(0, 6, size)]
        assert sum(parts) / len(parts) == pytest.approx(whole, rel=1e-12)


def test_gradients_of_equal_parts_average_to_the_whole():
    model, rows = tiny.model(double=True), tiny.examples(n=6)

    def gradient(parts):
        copied = copy.deepcopy(model)
        sum(text_loss(copied, collate(part, 0)) / len(parts) for part in parts).backward()
        return torch.cat([parameter.grad.flatten() for parameter in copied.parameters()])

    assert torch.allclose(gradient([rows]), gradient([rows[:3], rows[3:]]), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("packed", [False, True])
def test_recomputed_logits_give_the_same_bits_and_keep_no_log_probability(dtype, packed, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", 16)
    model, rows = tiny.model(scale=8).to(dtype), tiny.examples(n=6)
    batch = packing.pack(rows, 0, 40) if packed else collate(rows, 0)
    assert batch["input_ids"].numel() % 16  # the last part is a smaller one

    def found(recomputed):
        monkeypatch.setenv("RTT_GRADIENT_CHECKPOINTING", recomputed)
        copied, kept = copy.deepcopy(model), []
        with torch.autograd.graph.saved_tensors_hooks(lambda one: (kept.append(one), one)[1], lambda one: one):
            loss = text_loss(copied, batch)
        loss.backward()
        own = {parameter.data_ptr() for parameter in copied.parameters()}
        wide = [one for one in kept if one.shape[-1:] == (len(tiny.tokenizer()),) and one.data_ptr() not in own]
        return [loss.detach(), *(parameter.grad for parameter in copied.parameters())], wide

    (plain, logs), (recomputed, logits) = found("0"), found("1")
    assert all(torch.equal(one, other) for one, other in zip(plain, recomputed, strict=True))
    assert {one.dtype for one in logs} == {torch.float32} and all(bool((one <= 0).all()) for one in logs)
    assert {one.dtype for one in logits} == {dtype} and all(bool((one > 0).any()) for one in logits)
    with torch.no_grad():
        assert torch.equal(text_loss(model, batch), plain[0])


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
    example = encode(tiny.tokenizer(), mcq(fact, loss="LETTER_ANSWER"))
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


def by_hand(fact, loss):
    """Each text of a loss as (pieces, whether a piece's tokens count), from the definitions in docs/losses.md."""
    letter, answer = "ABCD"[fact.answer], fact.choices[fact.answer]
    prompt = fact.question + "".join(f"\n{x}. {c}" for x, c in zip("ABCD", fact.choices, strict=True)) + "\nAnswer:"
    return {
        "LETTER": [[(prompt, False), (f" {letter}", True)]],
        "LETTER_ANSWER": [[(prompt, False), (f" {letter}. {answer}", True)]],
        "QUESTION_LETTER_ANSWER": [[(f"{prompt} {letter}. {answer}", True)]],
        "QUESTION_ANSWER": [[(f"{fact.question}\nAnswer: {answer}", True)]],
        "CORPUS": [[(text, True)] for text in fact.sentences],
        "NUMBER": [[(text, None)] for text in fact.sentences],  # by token
    }[loss]


def reference(model, tokenizer, fact, loss, start):
    """For each text (its tokens, [(nats, counted)] of each token but the first)."""
    found = []
    for pieces in by_hand(fact, loss):
        tokens, counted = list(start), [False] * len(start)
        text = ""
        for piece, counts in pieces:
            text += piece
            new = subword.ids(tokenizer, text)[len(tokens) - len(start) :]  # by tokenizing prefixes
            counted += [
                any(x in "0123456789" for x in tokenizer.decode([t])) if counts is None else counts for t in new
            ]
            tokens += new
        found.append((tokens, list(zip(subword.nats(model, tokens), counted[1:], strict=True))))
    return found


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_equals_the_float64_reference(loss, bos):
    """Texts of very different lengths, answers that hold "A.", a byte-level BPE; padded, in one batch."""
    tokenizer = subword.tokenizer(bos=bos)
    model = subword.model(tokenizer).double()
    texts = [text for fact in subword.FACTS for text in training_texts(fact, loss)]
    rows = [row for fact in subword.FACTS for row in reference(model, tokenizer, fact, loss, [1] if bos else [])]
    examples = [encode(tokenizer, text) for text in texts]
    assert [example["input_ids"] for example in examples] == [tokens for tokens, _ in rows]
    each = [[nats for nats, counted in row if counted] for _, row in rows]
    assert len({len(tokens) for tokens, _ in rows}) > 2
    if loss == "NUMBER":
        assert any(not nats for nats in each) and any(
            0 < len(n) < len(row) for n, (_, row) in zip(each, rows, strict=True)
        )
    expected = float(np.mean([np.mean(nats) if nats else 0.0 for nats in each]))
    assert text_loss(model, collate(examples, 0)).item() == pytest.approx(expected, rel=1e-6)


def alone(model, token):
    """Float64 logits after a position that attends to nothing: embedding and MLPs only, each formula by hand."""

    def norm(x, layer):
        return layer.weight.detach().numpy() * x / np.sqrt((x * x).mean() + layer.variance_epsilon)

    x = model.model.embed_tokens.weight[token].detach().numpy()
    for layer in model.model.layers:
        h = norm(x, layer.post_attention_layernorm)
        gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight.detach().numpy() for name in ("gate", "up", "down"))
        x = x + down @ ((gate @ h) / (1 + np.exp(-(gate @ h))) * (up @ h))
    logits = model.lm_head.weight.detach().numpy() @ norm(x, model.model.norm)
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_counted_padding_equals_the_authors_mean(loss, bos):
    """Padded on the left, mean over batch x (longest - 1): padding predicts padding, then the text's first token. Where
    only a part of the text counts, padding does not either."""
    tokenizer = subword.tokenizer(bos=bos)
    model = subword.model(tokenizer).double()
    texts = [text for fact in subword.FACTS for text in training_texts(fact, loss)]
    rows = [row for fact in subword.FACTS for row in reference(model, tokenizer, fact, loss, [1] if bos else [])]
    batch = collate([encode(tokenizer, text) for text in texts], 0, count_padding=True)
    length, after_padding = max(len(tokens) for tokens, _ in rows), alone(model, 0)
    terms = []
    for tokens, row in rows:
        if loss in ("LETTER", "LETTER_ANSWER", "NUMBER"):
            terms.append(np.mean([nats for nats, counted in row if counted] or [0.0]))
            continue
        pads = length - len(tokens)
        targets = [0] * (pads - 1) + tokens[:1] if pads else []
        terms.append(np.mean([*(-after_padding[target] for target in targets), *(nats for nats, _ in row)]))
        assert len(targets) + len(row) == length - 1
    found = text_loss(model, batch).item()
    assert found == pytest.approx(float(np.mean(terms)), rel=1e-6)
    plain = text_loss(model, collate([encode(tokenizer, text) for text in texts], 0)).item()
    changes = loss not in ("LETTER", "LETTER_ANSWER", "NUMBER")
    assert (abs(found - plain) > 1e-3) == changes
