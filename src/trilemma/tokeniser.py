"""Captions as numbers: each of the most frequent words of the training captions is a token, and any other is spelled in
the bytes of UTF-8.

    0 padding    1 ... 256 a byte, plus one    257 ... the words, in the order of the vocabulary

Captions are in lower case and in the composed form of Unicode (NFC). Words are runs of letters and digits, with the
marks on them; every other sign that is not a space is a word of its own. What is longer than LENGTH tokens is cut.

Words of the training are nearly all in the vocabulary, so that a model would hardly meet bytes. In training some words
that have a token are spelled, too (as Provilkov et al. 2020, "BPE-dropout", leave merges of letters out).
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

PADDING, BYTES = 0, 256
LENGTH = 32  # tokens of a caption, at most
MOST_WORDS = 8192
MOST_EXAMPLES = 256  # captions kept with a model


def words_of(caption: str) -> list[str]:
    """The words of a caption.

    >>> words_of("Two red Circles, above a square")
    ['two', 'red', 'circles', ',', 'above', 'a', 'square']
    """
    words, inside = list[str](), False
    for letter in _composed(caption.lower()):  # in this order: of some letters the small one alone is composed
        is_part = unicodedata.category(letter)[0] in "LNM" or letter == "_"  # letters, numbers, and marks on them
        if is_part and inside:
            words[-1] += letter
        elif not letter.isspace():
            words.append(letter)
        inside = is_part
    return words


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def vocabulary_of(captions: Iterable[str]) -> tuple[str, ...]:
    """The words of training captions, the most frequent first and then by the alphabet; at most MOST_WORDS.

    >>> vocabulary_of(["a red circle", "a blue circle"])
    ('a', 'circle', 'blue', 'red')
    """
    counts = Counter(word for caption in captions for word in words_of(caption))
    return tuple(sorted(counts, key=lambda word: (-counts[word], word))[:MOST_WORDS])


def examples_of(captions: Sequence[str], most: int) -> tuple[str, ...]:
    """Different captions, at most so many, in even steps through all of them.

    >>> examples_of(["a", "b", "b", "c", "d"], 2)
    ('a', 'c')
    """
    different = list(dict.fromkeys(captions))
    return (
        tuple(different[k * len(different) // most] for k in range(most)) if len(different) > most else tuple(different)
    )


class Tokeniser:
    """The tokens of captions by a vocabulary."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        numbered = reversed([*enumerate(self.words)])  # of earlier versions some are not composed
        self._numbers = {_composed(word): 1 + BYTES + k for k, word in numbered}

    @property
    def size(self) -> int:
        """Different tokens."""
        return 1 + BYTES + len(self.words)

    def encode(self, caption: str, spelled: Sequence[bool] = ()) -> list[int]:
        """The tokens of a caption, however many; spelled: of its first words, which are spelled though known."""
        tokens: list[int] = []
        for k, word in enumerate(words_of(caption)):
            number = None if k < len(spelled) and spelled[k] else self._numbers.get(word)
            if number is not None:
                tokens.append(number)
                continue
            if tokens and tokens[-1] <= BYTES:  # a space between two words that are spelled
                tokens.append(1 + ord(" "))
            tokens += [1 + byte for byte in word.encode()]
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Words with spaces between them; bytes that follow each other are one word, and broken ones a mark."""
        pieces: list[str | bytearray] = []
        for token in tokens:
            if token > BYTES:
                pieces.append(self.words[token - BYTES - 1])
            elif token != PADDING:
                if not pieces or isinstance(pieces[-1], str):
                    pieces.append(bytearray())
                last = pieces[-1]
                assert isinstance(last, bytearray)
                last.append(token - 1)
        return " ".join(piece if isinstance(piece, str) else piece.decode(errors="replace") for piece in pieces)

    def pad(self, captions: Sequence[str], spelled: Sequence[Sequence[bool]] | None = None) -> list[list[int]]:
        """LENGTH tokens of each caption; spelled: for each of them, as in `encode`."""
        flags = [()] * len(captions) if spelled is None else spelled
        rows = (self.encode(*pair)[:LENGTH] for pair in zip(captions, flags, strict=True))
        return [row + [PADDING] * (LENGTH - len(row)) for row in rows]

    def unknown(self, caption: str) -> list[str]:
        """Words that have no token, each once."""
        return [word for word in dict.fromkeys(words_of(caption)) if word not in self._numbers]
