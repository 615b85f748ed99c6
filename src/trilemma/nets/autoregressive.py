"""A causal transformer over sequences of categories: p(k_1 ... k_L) = prod_i p(k_i | k_1 ... k_(i-1)).

Vaswani et al. (2017), "Attention is all you need", decoder only, with normalisation before each part (Xiong et al.
2020). The input of place i is the category of place i - 1, a start symbol at the first place, plus a learned vector
for the place. A sequence is drawn with a memory of the keys and values of the places before, so each place is computed
once.
"""

import math

import torch
from torch import Tensor, nn

from trilemma.nets.precision import full

HEAD = 32  # numbers in an attention head
INIT_STD = 0.02

Memory = list[tuple[Tensor, Tensor]]  # keys and values of each layer, (B, heads, places, HEAD)


class CausalTransformer(nn.Module):
    """Categories (B, n) of the first places -> logits (B, n, categories) of the places after each of them."""

    def __init__(
        self, categories: int, length: int, *, width: int, depth: int, dropout: float = 0.0, starts: int = 1
    ) -> None:
        """
        Args:
            length: places in a sequence.
            starts: start symbols, numbered from `start` on: kinds of sequences.
            width: numbers in a place's vector, a multiple of HEAD; depth: layers.
            dropout: share of a layer's output that is left out in training.
        """
        super().__init__()
        self.start = categories  # the first of the symbols that stand before the first place
        self.symbols = nn.Embedding(categories + starts, width)
        self.places = nn.Parameter(torch.empty(length, width))
        layers = [_Layer(width, dropout) for _ in range(depth)]
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, categories)
        for weight in (self.symbols.weight, self.places, self.head.weight):
            nn.init.normal_(weight, std=INIT_STD)
        for layer in layers:  # each adds to the same sum, whose variance should not grow with the depth
            for last in (layer.mix, layer.feed[-2]):
                assert isinstance(last, nn.Linear)
                nn.init.normal_(last.weight, std=INIT_STD / math.sqrt(2 * depth))

    def forward(self, before: Tensor, memory: Memory | None = None) -> Tensor:
        """Logits for the places that follow.

        Args:
            before: int64 (B, n), of each place the category before it, a start symbol for the first. With a memory
                that is not empty: (B, 1), the next one.
            memory: what earlier calls left there, [] at first; this call adds its own.
        Returns:
            (B, n, categories), float32 or better.
        """
        first = memory[0][0].shape[2] if memory else 0
        h = self.symbols(before) + self.places[first : first + before.shape[1]]
        for number, layer in enumerate(self.layers):
            h = layer(h, number, memory)
        return full(self.head(self.norm(h)))


class _Layer(nn.Module):
    """h + attention(norm(h)), then h + mlp(norm(h))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, h: Tensor, number: int, memory: Memory | None) -> Tensor:
        parts = self.queries_keys_values(self.before_attention(h)).unflatten(2, (3, -1, HEAD)).permute(2, 0, 3, 1, 4)
        query, key, value = parts  # each (B, heads, n, HEAD)
        if memory is not None:
            if number < len(memory):
                key, value = (
                    torch.cat([old, new], dim=2) for old, new in zip(memory[number], (key, value), strict=True)
                )
                memory[number] = key, value
            else:
                memory.append((key, value))
        h = h + self.dropout(self.mix(_attention(query, key, value).flatten(2)))
        return h + self.feed(self.before_feed(h))


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Each of the last n of m places looks at itself and those before: (B, heads, n, HEAD), twice (B, heads, m, HEAD)
    -> (B, n, heads, HEAD).

    Written out: for short sequences torch's fused kernel is four times slower on a CPU.
    """
    scores = HEAD**-0.5 * query @ key.mT  # (B, heads, n, m)
    n, m = scores.shape[2:]
    if n > 1:
        scores = scores + scores.new_full((n, m), -math.inf).triu(m - n + 1)
    return (scores.softmax(3) @ value).transpose(1, 2)
