"""The matcher against sentences written before it, and what a phrase is known by."""

from pathlib import Path

import pytest
from sentences import SCHEMA, SENTENCES, Sentence

from retrieval.vocabulary import read_vocabulary
from retrieval.words import Understood, Words
from training.errors import UsageError
from training.schema import Attribute, Schema

VOCABULARY = read_vocabulary()
WORDS = Words(SCHEMA, VOCABULARY, slips=True)


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda s: s.text)
def test_a_sentence_is_understood_whole(sentence: Sentence) -> None:
    found = WORDS.understand(sentence.text)
    assert set(found.present) == set(sentence.present.split())
    assert set(found.absent) == set(sentence.absent.split())
    assert set(found.like) == set(sentence.like.split())
    assert list(found.unused) == sentence.unused.split()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("T-shirts; Tee-Shirt; TSHIRT; t shirt", "t-shirt"),
        ("v-necks, V NECK, Vneck, neckline: v", "v-neck"),
        ("long-sleeved, Long Sleeves, long and wide sleeves", "long-sleeve"),
        ("long dress", "dress"),  # the schema's lengths have no `long`; it is no sleeve
        ("maroon", "red"),  # a kind of it
        ("men's short-sleeve", "short-sleeve"),
        ("not a striped shirt but a checked one", "shirt checked"),
        ("without stripes or dots and with a hood", "hood:yes"),
        ("no blue stripes in grey", "grey"),
        ("non-iron shirt, non-striped", "shirt"),
        ("dress shirt", "shirt"),
        ("shirt dress with polo collar", "dress polo"),
        ("back", ""),  # a letter from `black`, but a word
    ],
)
def test_phrases(text: str, meant: str) -> None:
    for part in text.split("; "):
        assert set(WORDS.understand(part).present) == set(meant.split()), part


def test_any_schema_without_a_vocabulary() -> None:
    """A value's own name is known, in two attributes only beside its attribute's name, or in a
    column that is called after it; numbers and yes likewise."""
    schema = Schema(
        (
            Attribute("toe", ("round", "zorbly-quux"), multi=True),
            Attribute("neck", ("round", "3")),
            Attribute("lining", ("yes", "no")),
            Attribute("trim", ("black & white", "-")),
        )
    )
    words = Words(schema, read_vocabulary())
    for text, meant in {
        "a Zorbly Quux": ("zorbly-quux",),
        "zorblyquuxes": ("zorbly-quux",),
        "round": (),
        "round toe": ("toe:round",),
        "neck: round": ("neck:round",),
        "3 pieces": (),
        "neck 3, lining": ("neck:3", "lining:yes"),
        "yes, without lining": ("lining:no",),
        "a Black and White thing": ("black & white",),
    }.items():
        assert words.understand(text).present == meant, text
    assert words.understand("round", "neck details").present == ("neck:round",)


def test_one_value_of_an_attribute_of_one() -> None:
    """The garment is the last noun before `with`, the colour the last before it, of two joined
    the first; what gives way is unused."""
    schema = Schema(
        (Attribute("category", ("dress", "belt", "tie")), Attribute("colour", ("red", "blue")))
    )
    words = Words(schema, VOCABULARY)
    assert words.understand("Red Zip Blue Tie Dress with red belt") == Understood(
        ("blue", "dress"), unused=("red", "zip", "tie", "red", "belt")
    )
    assert words.understand("red & blue dress").present == ("red", "dress")


def test_a_vocabulary_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'ignored = ["red tape"]\n[colour.terms]\nred = ["zorb"]\n'
        '[heel]\nnouns = ["heel"]\n[heel.terms]\nhigh = ["tall *"]\n'
        '[heel.kinds]\nstiletto = "spike"\nspike = "stiletto"\n'
    )
    schema = Schema((*SCHEMA.attributes, Attribute("heel", ("high", "low"))))
    words = Words(schema, read_vocabulary(file))
    assert words.understand("zorb scarlet tall heels").present == ("red", "high")
    assert words.understand("Red Tape dress") == Understood(("dress",), unused=("red", "tape"))
    file.write_text('[colour]\ncaled = ["x"]\n')
    with pytest.raises(UsageError, match=r"own.toml, colour.*caled"):
        read_vocabulary(file)


def test_every_word_of_the_shipped_vocabulary_is_found_as_its_term() -> None:
    entries = VOCABULARY.entries
    schema = Schema(tuple(Attribute(name, tuple(e.terms)) for name, e in entries.items()))
    words = Words(schema, VOCABULARY)
    wrong = []
    for name, entry in entries.items():
        number = schema.attribute(name)
        for phrase, term in entry.phrases():
            noun = entry.nouns[0] if entry.nouns else name
            found = words.understand(phrase.replace("*", noun)).present
            own = [f for f in found if schema.attribute_of[schema.value(f)] == number]
            if own != [schema.value_names[schema.value_of(name, term)]]:
                wrong.append((name, term, phrase, found))
    assert not wrong
