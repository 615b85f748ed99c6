"""The text encoder and what looks at its tokens: padding does not count, and no caption is one and the same thing."""

import torch

from trilemma.nets.text import CrossAttention, TextEncoder
from trilemma.tokeniser import LENGTH, PADDING


def encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(40, 32, 2).double().eval()


def captions(*lengths: int, filler: int = PADDING) -> torch.Tensor:
    """Tokens 5, 6, 7, ... of captions of some lengths, and a filler behind them."""
    rows = torch.full((len(lengths), LENGTH), filler)
    for row, length in zip(rows, lengths, strict=True):
        row[:length] = 5 + torch.arange(length)
    return rows


def test_what_is_read_of_a_caption_does_not_depend_on_others_beside_it() -> None:
    model, given = encoder(), torch.tensor([False, False])
    tokens, keep, vector = model(captions(3, 7), given)
    alone, _, vector_alone = model(captions(3), given[:1])
    assert keep.sum(1).tolist() == [3, 7]
    assert torch.allclose(tokens[0, :3], alone[0, :3]) and torch.allclose(vector[0], vector_alone[0])
    assert torch.allclose(vector, torch.stack([tokens[0, :3].mean(0), tokens[1, :7].mean(0)]))


def test_padding_changes_nothing() -> None:
    """The embedding of the padding is another one: tokens before it stay what they are."""
    model, given = encoder(), torch.tensor([False])
    before, _, vector = model(captions(4), given)
    with torch.no_grad():
        model.tokens.weight[PADDING] += torch.arange(32.0)
    after, _, moved = model(captions(4), given)
    assert torch.allclose(before[:, :4], after[:, :4]) and torch.allclose(vector, moved)
    assert (before[:, 4:] - after[:, 4:]).abs().max() > 1e-3


def test_a_caption_that_is_not_given_is_the_learned_one_whatever_stands_there() -> None:
    model, absent = encoder(), torch.tensor([True, True])
    tokens, keep, vector = model(captions(3, 0), absent)
    assert keep.all() and torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], model.null_tokens) and torch.equal(vector[1], model.null_vector)


def test_the_order_of_words_matters() -> None:
    model, given = encoder(), torch.tensor([False])
    one, other = captions(2), captions(2)
    other[0, :2] = one[0, :2].flip(0)
    assert (model(one, given)[2] - model(other, given)[2]).abs().max() > 1e-3


def test_attention_to_tokens_begins_at_zero_and_leaves_out_padding() -> None:
    torch.manual_seed(0)
    attention = CrossAttention(16, 12, 2).double()
    x, tokens = torch.randn(2, 9, 16).double(), torch.randn(2, 5, 12).double()
    keep = torch.tensor([[True, True, False, False, True]] * 2)
    assert not attention(x, tokens, keep).any()
    torch.nn.init.normal_(attention.last.weight)
    result = attention(x, tokens, keep)
    changed = torch.where(keep[:, :, None], tokens, 100 * tokens)
    assert torch.allclose(attention(x, changed, keep), result)
    only = attention(x, tokens[:, :1], keep[:, :1])  # of one token all places take the same
    assert torch.allclose(only, only[:, :1].expand_as(only))
