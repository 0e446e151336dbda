"""Twenty sentences for `retrieve query --text` and what each means, written before the matcher.

A sentence is changed only where its English is wrong. Words that stand for nothing by themselves
("like this but", "please") count neither as used nor as unused.
"""

from dataclasses import dataclass

from training.schema import Attribute, Schema

SCHEMA = Schema(
    (
        Attribute(
            "category",
            (
                *("dress", "skirt", "t-shirt", "shirt", "blouse", "sweater", "hoodie"),
                *("jacket", "coat", "trousers"),
            ),
        ),
        Attribute(
            "colour",
            ("black", "white", "red", "blue", "navy", "green", "grey", "pink", "beige"),
            multi=True,
        ),
        Attribute("pattern", ("solid", "striped", "floral", "checked", "dotted", "animal")),
        Attribute("sleeve-length", ("sleeveless", "short-sleeve", "three-quarter", "long-sleeve")),
        Attribute("sleeve-shape", ("regular", "puff", "bell")),
        Attribute("collar-shape", ("round-neck", "v-neck", "turtleneck", "polo", "collarless")),
        Attribute("length", ("mini", "knee", "midi", "maxi")),
        Attribute("shape", ("slim", "loose", "a-line", "straight")),
        Attribute("button", ("pullover", "single-breasted", "double-breasted", "zip")),
        Attribute("usage", ("casual", "formal", "sports")),
        Attribute("hood", ("no", "yes")),
    )
)


@dataclass(frozen=True)
class Sentence:
    """A sentence and, each parted by blanks, the values and attributes that it means and the words
    that mean nothing to `SCHEMA`."""

    text: str
    present: str = ""
    absent: str = ""
    like: str = ""
    unused: str = ""


SENTENCES = (
    Sentence("like this but red, long-sleeved, no stripes", "red long-sleeve", "striped"),
    Sentence("the same but in navy blue, please", "navy"),
    Sentence(
        "same neckline, but sleeveless and a bit longer",
        "sleeveless",
        like="collar-shape",
        unused="bit longer",
    ),
    Sentence("a shirt without a collar", "shirt collarless"),
    Sentence("not floral, not dotted, just plain", "solid", "floral dotted"),
    Sentence("red instead of blue", "red", "blue"),
    Sentence(
        "keep the colour and the sleeves, but make it a maxi dress",
        "maxi dress",
        like="colour sleeve-length sleeve-shape",
    ),
    Sentence(
        "a black and white striped T-shirt with short sleeves",
        "black white striped t-shirt short-sleeve",
    ),
    Sentence("in green, with no sleeves and no hood", "green sleeveless hood:no"),
    Sentence("something like this in grey, slim fit, for the gym", "grey slim sports"),
    Sentence("any colour but red", absent="red"),
    Sentence("with puffed sleeves and a V neck, less formal", "puff v-neck", "formal"),
    Sentence("a stripd dres, long sleves", "striped dress long-sleeve"),
    Sentence("knee-length, A-line, polka dots, nothing tight", "knee a-line dotted", "slim"),
    Sentence("similar pattern, different colour", like="pattern", unused="different colour"),
    Sentence("a zip-up hoodie, neither black nor grey", "zip hoodie", "black grey"),
    Sentence("crew neck jumper, chequered", "round-neck sweater checked"),
    Sentence("silk blouse in size 38, ivory", "blouse white", unused="silk size 38"),
    Sentence(
        "double-breasted coat, the collar as in the picture",
        "double-breasted coat",
        like="collar-shape",
    ),
    Sentence(
        "no animal or floral print, 3/4 sleeves, women",
        "three-quarter",
        "animal floral",
        unused="women",
    ),
)
