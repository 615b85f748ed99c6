"""Captions as tokens and back, over Unicode."""

import unicodedata

import pytest

from trilemma.tokeniser import BYTES, LENGTH, PADDING, Tokeniser, examples_of, vocabulary_of, words_of

TEXTS = [
    "a red circle",
    "Ein großes ROTES Dreieck, links!",
    "một hình tròn đỏ ở giữa",
    "三つの赤い円",
    "🟥 above 🔵",
    "don't stop (now)",
    "ＦＵＬＬ width",
    "e\u0301tude",
    "हिन्दी में एक वृत्त",
    "วงกลมสีแดง",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("known", [True, False])
def test_words_come_back(text: str, known: bool) -> None:
    tokeniser = Tokeniser(words_of(text) if known else ())
    tokens = tokeniser.encode(text)
    if known:
        assert tokeniser.decode(tokens) == " ".join(words_of(text)) and min(tokens) > BYTES
        assert tokeniser.unknown(text) == []
    else:
        assert tokeniser.decode(tokens) == " ".join(words_of(text)) and min(tokens) >= 1 and max(tokens) <= BYTES
        assert tokeniser.unknown(text) == list(dict.fromkeys(words_of(text)))


def test_an_unknown_word_among_known_ones_is_spelled() -> None:
    tokeniser = Tokeniser(("a", "circle"))
    assert tokeniser.encode("a Ω circle") == [257, 1 + 0xCF, 1 + 0x89, 258]
    assert tokeniser.decode(tokeniser.encode("a Ω circle")) == "a ω circle"[:2] + "Ω".lower() + " circle"
    assert tokeniser.unknown("a Ω circle") == ["ω"] and tokeniser.size == 259


def test_known_words_are_spelled_where_asked() -> None:
    tokeniser = Tokeniser(("a", "red", "circle"))
    spelled = tokeniser.encode("a red circle", [False, True])
    assert spelled == [257, *(1 + byte for byte in b"red"), 259] and tokeniser.decode(spelled) == "a red circle"
    both = tokeniser.encode("a red circle", [True, True, False])
    assert both == [*(1 + byte for byte in b"a red"), 259] and tokeniser.decode(both) == "a red circle"
    rows = tokeniser.pad(["a", "red circle"], [[True], [False, False]])
    assert rows == [[1 + ord("a")] + [PADDING] * (LENGTH - 1), [258, 259] + [PADDING] * (LENGTH - 2)]


def test_marks_belong_to_their_letters() -> None:
    assert words_of("हिन्दी वृत्त") == ["हिन्दी", "वृत्त"] and words_of("foo_1 bar!") == ["foo_1", "bar", "!"]
    spelled = Tokeniser(()).encode
    assert spelled("foo bar") != spelled("foobar")


def test_case_and_composition_make_no_difference() -> None:
    tokeniser = Tokeniser(vocabulary_of(["Étude"]))
    assert tokeniser.encode("E\u0301TUDE") == tokeniser.encode("étude") == [257]


def test_case_makes_no_difference_under_any_mark() -> None:
    """Some letters with marks are composed in lower case alone, as ẗ."""
    marks = [chr(code) for code in range(0x300, 0x370)]
    for small in "abcdefghijklmnopqrstuvwxyz":
        for mark in marks:
            composed = unicodedata.normalize("NFC", small + mark)
            assert words_of(small.upper() + mark) == words_of(small + mark) == words_of(composed) == [composed]
    tokeniser = Tokeniser(vocabulary_of(["T\u0308"]))
    assert tokeniser.words == ("ẗ",) and tokeniser.encode("T\u0308") == tokeniser.encode("ẗ") == [257]


def test_words_that_an_earlier_version_did_not_compose_keep_their_tokens() -> None:
    tokeniser = Tokeniser(("a", "t\u0308", "ẗ", "h\u0331"))
    assert tokeniser.size == 261 and tokeniser.encode("a T\u0308 ẗ H\u0331") == [257, 258, 258, 260]


def test_captions_are_padded_and_cut() -> None:
    tokeniser = Tokeniser(("a",))
    short, empty, long = tokeniser.pad(["a a", " ", "a " * 100])
    assert short == [257, 257] + [PADDING] * (LENGTH - 2)
    assert empty == [PADDING] * LENGTH and long == [257] * LENGTH


def test_the_vocabulary_does_not_depend_on_the_order_of_captions() -> None:
    captions = ["b a", "c b", "a b"]
    assert vocabulary_of(captions) == vocabulary_of(captions[::-1]) == ("b", "a", "c")


def test_broken_bytes_are_shown() -> None:
    assert Tokeniser(()).decode([1 + 0xFF, PADDING]) == "\ufffd"


def test_examples_are_spread_over_the_captions() -> None:
    assert examples_of(["a", "a", "b"], 5) == ("a", "b")
    assert examples_of([str(k) for k in range(1000)], 4) == ("0", "250", "500", "750")
