"""What a text says of a garment: `blue V-neck dress, no stripes` in the values of a schema.

The longest phrase at a place counts. What a text does not name is unknown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from retrieval.vocabulary import Claim, Lexicon, Vocabulary, key_of, stem, tokens

if TYPE_CHECKING:
    from training.schema import Schema

_LONGEST = 5  # words of a phrase
_REACH = 3  # words from `round` to the `neck` that settles it
_FAR = 99


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ENDS = _set(", ; . | ( ) ! ? but with without has having while")  # of clauses
_DENY = _set(
    "no not non without neither nor never except nothing minus less avoid remove drop lose "
    "instead insteadof ratherthan otherthan"
)
_ALLOW = _set("in just only make for please then")  # nothing is denied any more
_LIKE = _set("same similar keep like as matching match preserve")
_ANY = _set("any anything")
_AND = _set("and or")
_EMPTY = (_ENDS | _DENY | _ALLOW | _LIKE | _ANY) | _set(
    "a an the this that these those it its is are be i me my we you s one ones and or of to "
    "on at by from so very too rather quite really some something someone picture photo image "
    "looks look looking want wanted would give show find can could should must do does have than "
    "also still if there here what which"
)


@dataclass(frozen=True)
class Understood:
    """What a text says: names of values and attributes as a request takes them, none twice, and the
    words, in order, that were not used."""

    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    like: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        """`red, long-sleeve; without striped; like colour; not used: bit, longer`."""
        parts = [("", self.present), ("without ", self.absent), ("like ", self.like)]
        said = [what + ", ".join(names) for what, names in parts if names] or ["nothing is named"]
        return "; ".join(said + [f"not used: {', '.join(self.unused)}"] * bool(self.unused))


class Words:
    """Finds the values of a schema in texts. `slips`: also where a word is misspelled by a letter;
    not for titles, where many a brand is a letter from a word."""

    def __init__(self, schema: Schema, vocabulary: Vocabulary, slips: bool = False) -> None:
        self.schema, self.lexicon = schema, Lexicon(schema, vocabulary)
        self._slips = slips

    def understand(self, text: str, column: str = "") -> Understood:
        """What a text says; the name of the column that it stands in settles what its own words do
        not: `round` in `neck details`."""
        about = key_of(column)
        context = {a for noun, own in self.lexicon.nouns.items() if noun in about for a in own}
        words = list(tokens(text))
        return _Reading(self.lexicon, words, list(map(self._key, words)), context).understood()

    def _key(self, word: str) -> str:
        sure = not self._slips or word in _EMPTY or not word.isalpha()
        return stem(word) if sure else self.lexicon.corrected(word)


class _Hit(NamedTuple):
    attribute: int
    value: int
    clause: int
    places: range


class _Noun(NamedTuple):
    places: range
    of: set[int]
    denied: bool


class _Reading:
    """One text, read clause by clause."""

    def __init__(
        self, lexicon: Lexicon, words: list[str], keys: list[str], context: set[int]
    ) -> None:
        self._of, self._context = lexicon, context
        self._words, self._keys = words, keys
        self._present: list[_Hit] = []
        self._absent: list[_Hit] = []
        self._like: list[int] = []
        self._unused: set[int] = set()
        denied, start, number = False, 0, 0
        for end in range(len(self._words) + 1):
            if end == len(self._words) or self._words[end] in _ENDS:
                nouns, cue = self._read(start, end, number, denied)
                any_ = not _ANY.isdisjoint(self._words[start:end])
                self._say(nouns, number, cue, any_)
                mark = self._words[end] if end < len(self._words) else ""
                denied = mark == "without" or (mark == "but" and any_)
                start, number = end + 1, number + 1

    def understood(self) -> Understood:
        """Names; of several values of an attribute of one, one."""
        schema = self._of.schema
        chosen: dict[int, _Hit] = {}
        for number in dict.fromkeys(hit.attribute for hit in self._present):
            own = [hit for hit in self._present if hit.attribute == number]
            if schema.attributes[number].multi:
                chosen |= {hit.value: hit for hit in own}
                continue
            last = number in self._of.last
            best = self._last(own) if last else own[0]
            chosen[best.value] = best
            self._unused.update(p for h in own if h.value != best.value for p in h.places)
        used = {place for hit in (*chosen.values(), *self._absent) for place in hit.places}
        names = schema.value_names
        return Understood(
            tuple(names[v] for v in sorted(chosen, key=lambda v: chosen[v].places.start)),
            tuple(dict.fromkeys(names[hit.value] for hit in self._absent)),
            tuple(schema.attributes[a].name for a in dict.fromkeys(self._like)),
            tuple(self._words[p] for p in sorted(self._unused - used)),
        )

    def _last(self, hits: list[_Hit]) -> _Hit:
        """The last hit of the first clause; of `white and blue` the first."""
        best = hits[0]
        for before, hit in itertools.pairwise(h for h in hits if h.clause == hits[0].clause):
            between = self._words[before.places.stop : hit.places.start]
            if not between or not _AND.issuperset(between):
                best = hit
        return best

    def _read(self, start: int, end: int, number: int, deny: bool) -> tuple[list[_Noun], bool]:
        """Find the values of a clause; returns its nouns, and whether a word says `like`."""
        nouns: list[_Noun] = []
        cue, last = False, (-1, -1)  # where what was last denied ends, and its attribute
        for places, claims, of in self._phrases(start, end):
            word = "".join(self._words[p] for p in places)
            if claims or of is not None:
                denied = deny or self._joined(*last, places.start, claims)
                last = (places.stop, claims[0].attribute if claims else -1) if denied else (-1, -1)
                deny = False
                hits = [_Hit(c.attribute, c.value, number, places) for c in claims if c.value >= 0]
                (self._absent if denied else self._present).extend(hits)
                if of is not None:
                    nouns.append(_Noun(places, of, denied))
                elif not hits:
                    self._unused.update(places)
            elif word in _DENY or word in _ALLOW:
                deny, last = word in _DENY, (-1, -1)
            elif word in _LIKE:
                cue = True
            elif word not in _EMPTY:
                self._unused.update(places)
                deny = deny and self._words[places.start - 1] != "non"  # `non-wired bra`
        return nouns, cue

    def _phrases(
        self, start: int, end: int
    ) -> Iterator[tuple[range, list[Claim], set[int] | None]]:
        """The phrases of a clause, longest first: what they name, or the attributes whose noun one
        is; neither for other words."""
        place = start
        while place < end:
            for width in range(min(_LONGEST, end - place), 0, -1):
                places = range(place, place + width)
                key = "".join(self._keys[p] for p in places)
                claims = self._of.claims.get(key)
                usable = self._usable(claims or [], places, start, end)
                noun = self._of.nouns.get(key)
                if noun is not None and all(c.value < 0 for c in usable):
                    yield places, [], noun
                    break
                said = "".join(self._words[p] for p in places)
                if usable or claims == [] or width == 1 or said in _DENY:
                    yield places, usable, None
                    break
            place += width

    def _usable(self, claims: list[Claim], places: range, start: int, end: int) -> list[Claim]:
        """The claims that hold at a place: firm ones, else those whose noun is nearest."""
        firm = [c for c in claims if not c.weak]
        if firm:
            return [c for c in firm if c.value >= 0] or firm
        near = [(self._distance(c.attribute, places, start, end), c) for c in claims]
        least = min((distance for distance, _ in near), default=_FAR)
        return [c for distance, c in near if distance == least < _FAR]

    def _distance(self, attribute: int, places: range, start: int, end: int) -> int:
        """Words to the nearest noun of an attribute, behind before in front of; `_FAR`: none."""
        behind = range(places.stop, min(places.stop + _REACH, end))
        front = range(places.start - 1, max(places.start - _REACH, start) - 1, -1)
        for distance, place in enumerate((*behind, *front), 1):
            if attribute in self._of.near.get(self._keys[place], ()):
                return distance
        return _FAR - 1 if attribute in self._context else _FAR

    def _joined(self, stop: int, attribute: int, start: int, claims: list[Claim]) -> bool:
        """Whether what is denied goes on: `no dots or checks`, `no blue stripes`."""
        if stop < 0:
            return False
        between = self._words[stop:start]
        if not between:
            return bool(claims) and claims[0].attribute not in self._of.last
        if between == ["and"]:
            return bool(claims) and claims[0].attribute == attribute
        return "or" in between or "nor" in between

    def _say(self, nouns: list[_Noun], number: int, cue: bool, any_: bool) -> None:
        """What the nouns of a clause mean that belong to no value of it: `same collar`."""
        hit = {h.attribute for h in (*self._present, *self._absent) if h.clause == number}
        for places, of, denied in nouns:
            if of & hit or any_:
                continue
            said = self._of.without if denied else {} if cue else self._of.having
            found = [_Hit(a, said[a], number, places) for a in sorted(of) if a in said]
            self._present += found
            if cue and not denied:
                self._like += sorted(of)
            if not found and not (cue and of):
                self._unused.update(places)
