"""The words of a vocabulary and of a schema, and what each names: phrases by their words run
together, so that case, blanks, hyphens and plurals do not matter.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from training.validated import read_toml, validated

if TYPE_CHECKING:
    from training.schema import Schema

_SHIPPED = Path(__file__).with_name("vocabulary.toml")
_SLIP = 5  # letters of the shortest word that may be misspelled
_TOKEN = re.compile(r"\d+/\d+|[^\W_]+(?:['\u2019][^\W_]+)*|[,;|()!?&+]|(?<=[^\W_]{2})\.(?=\s|$)")
_WHOLE = frozenset(("shorts", "tights", "glasses", "shades"))  # something else without their s
_YES = frozenset(("", "yes", "y", "true", "with", "on"))
_NO = frozenset(("no", "n", "none", "false", "non", "without", "off", "not"))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a vocabulary says of one attribute; the head of vocabulary.toml tells each field."""

    called: tuple[str, ...] = ()
    nouns: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    pick: Literal["first", "last"] = "first"
    without: str = ""
    terms: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def phrases(self) -> Iterator[tuple[str, str]]:
        """Every phrase and the term that it stands for."""
        for term, words in self.terms.items():
            yield from ((phrase, term) for phrase in (term, *words))


@dataclass(frozen=True)
class Vocabulary:
    """Phrases of whose words none is a value, and entries by attribute."""

    ignored: tuple[str, ...]
    entries: dict[str, Entry]


def read_vocabulary(extra: Path | None = None) -> Vocabulary:
    """The shipped vocabulary, and before it what another file adds; UsageError if malformed."""
    shipped = _read(read_toml(_SHIPPED), _SHIPPED)
    if extra is None:
        return shipped
    added = read_toml(extra)
    _read(added, extra)
    return _read(_merged(added, read_toml(_SHIPPED)), extra)


def _read(tables: dict[str, Any], path: Path) -> Vocabulary:
    entries = {name: table for name, table in tables.items() if name != "ignored"}
    for name, table in entries.items():
        validated(Entry, table, f"{path}, {name}")
    whole = {"ignored": tables.get("ignored", ()), "entries": entries}
    return validated(Vocabulary, whole, str(path))


def _merged(new: Any, old: Any) -> Any:
    """Tables by table, lists one after the other, else what is new."""
    if isinstance(new, dict):
        return new | {k: _merged(new[k], v) if k in new else v for k, v in old.items()}
    return new + old if isinstance(new, list) else new


class Claim(NamedTuple):
    """That a phrase names a value: by flat index, -1 where the schema's attribute (-1: the schema)
    lacks it; a weak one only beside a noun of the attribute."""

    attribute: int
    value: int
    weak: bool


class Lexicon:
    """What phrases name in a schema: by the names of its values, and by a vocabulary.

    Args:
        claims: the values that the phrase of a key names; none: its words name nothing.
        nouns: the attributes that a key is a noun of; near: whose weak claims it settles.
        last: attributes of whose values the last in a text is meant.
        without, having: the value of what has none of an attribute, and of what has it.
    """

    def __init__(self, schema: Schema, vocabulary: Vocabulary) -> None:
        self.schema = schema
        self.claims: dict[str, list[Claim]] = {key_of(p): [] for p in vocabulary.ignored}
        self.nouns: dict[str, set[int]] = {}
        self.near: dict[str, set[int]] = {}
        self.last: set[int] = set()
        self.without: dict[int, int] = {}
        self.having: dict[int, int] = {}
        self._pieces: set[str] = set()  # words of phrases
        names = [key_of(a.name) for a in schema.attributes]
        entries: list[list[Entry]] = [[Entry(nouns=(a.name,))] for a in schema.attributes]
        for name, entry in vocabulary.entries.items():
            called = (name, *entry.called)
            numbers = [n for n, key in enumerate(names) if key in map(key_of, called)]
            for number in numbers:
                entries[number].append(entry)
            for word in (*called, *entry.nouns, *entry.near):
                self._hear(word)
                self.near.setdefault(key_of(word), set()).update(numbers)
            for word in (*called, *entry.nouns):
                self.nouns.setdefault(key_of(word), set()).update(numbers)
            if not numbers:  # its phrases are no other attribute's words
                for phrase, _ in entry.phrases():
                    self._claim(phrase, entry.nouns, Claim(-1, -1, False))
        for number, key in enumerate(names):
            self._hear(schema.attributes[number].name)
            for known in (self.nouns, self.near):
                known.setdefault(key, set()).add(number)
            self._learn(number, entries[number])
        values = [key_of(v) for a in schema.attributes for v in a.values]
        for key in {value for value in values if values.count(value) > 1}:
            self.claims[key] = [c._replace(weak=True) for c in self.claims[key]]

    def _learn(self, number: int, entries: Iterable[Entry]) -> None:
        """The names of an attribute's values, and what entries say of them."""
        nouns = [noun for noun, own in self.nouns.items() if number in own]
        flats = range(*self.schema.offsets[number : number + 2])
        names = dict(zip(flats, self.schema.attributes[number].values, strict=True))
        own = {key_of(name): flat for flat, name in names.items()}
        for key, flat in list(own.items()):
            bare = next((key.removesuffix(n) for n in nouns if key.endswith(n)), key)
            if bare in _NO:
                self.without[number] = flat
            elif bare in _YES:
                self.having[number] = flat
            else:
                own.setdefault(bare, flat)  # `round` of `round-neckline`
        spelled = {key + noun: flat for key, flat in own.items() for noun in nouns} | own
        weak = {key for key in own if key in _NO | _YES or key.isdigit()}
        for entry in entries:
            values: dict[str, int] = {}
            for phrase, term in entry.phrases():
                key, *joined = _keys(phrase, entry.nouns)
                weak |= {key} if phrase.endswith("*") else set()
                for known in (k for k in (key, *joined) if k in spelled):
                    values.setdefault(term, spelled[known])
            for phrase, term in entry.phrases():
                kind = term
                for _ in entry.kinds:  # as often at most: two may be kinds of each other
                    kind = kind if kind in values else entry.kinds.get(kind, kind)
                self._claim(phrase, entry.nouns, Claim(number, values.get(kind, -1), False))
            if entry.pick == "last":
                self.last.add(number)
            if entry.without in values:
                self.without.setdefault(number, values[entry.without])
        for key, flat in own.items():
            whole = key == key_of(names[flat])
            claims = self.claims.setdefault(key, [])
            others = [c for c in claims if c.attribute != number]
            unsure = key in weak or (not whole and len(others) == len(claims))
            claims[:] = others  # its own value comes before what an entry says
            self._claim(names[flat] if whole else key, nouns, Claim(number, flat, unsure))

    def _hear(self, phrase: str) -> None:
        self._pieces.update(map(stem, tokens(phrase)))

    def _claim(self, phrase: str, nouns: Iterable[str], claim: Claim) -> None:
        """Let a phrase name a value, alone or before a noun; the first to claim it for an attribute
        has it."""
        self._hear(phrase)
        alone, *joined = _keys(phrase, nouns)
        firm = claim._replace(weak=False)
        first = claim._replace(weak=claim.weak or phrase.endswith("*"))
        for key, one in [(alone, first), *((key, firm) for key in joined)]:
            claims = self.claims.setdefault(key, [])
            if all(c.attribute != claim.attribute for c in claims):
                claims.append(one)

    def corrected(self, word: str) -> str:
        """The key of a word, of the one that it is a slip of the pen from if it is not known."""
        key = stem(word)
        if any(w in of for w in (word, key) for of in (self._pieces, self.claims)):
            return key
        for spelled in (word, key):
            cutoff = 1 - 1 / len(spelled) - 1e-9  # one letter
            near = difflib.get_close_matches(spelled, self._pieces, 5, cutoff)
            found = [w for w in near if _one_slip(spelled, w)]
            if found and all(self.claims.get(w) == self.claims.get(found[0]) for w in found):
                return found[0]
        return key


def tokens(text: str) -> Iterator[str]:
    """Words and marks in lower case: `men's` is `men`, `don't` is `not`."""
    for token in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold()):
        word = "and" if token in "&+" else token.replace("\u2019", "'")
        yield "not" if word.endswith("n't") else word.removesuffix("'s")


def key_of(phrase: str) -> str:
    """Phrases of one key are one: `T-shirts`, `tshirt`."""
    return "".join(stem(token) for token in tokens(phrase) if token[0].isalnum())


def _keys(phrase: str, nouns: Iterable[str]) -> list[str]:
    """Keys of a phrase: alone, and before each noun."""
    return [key_of(phrase), *(key_of(phrase) + key_of(noun) for noun in nouns)]


def _one_slip(spelled: str, word: str) -> bool:
    """Whether one may be meant by the other, a letter apart: neither is short, `back` and `black`,
    unless a letter is doubled, `dres`."""
    once = (re.sub(r"(.)\1", r"\1", text) for text in (spelled, word))
    return spelled[0] == word[0] and (min(len(spelled), len(word)) >= _SLIP or len({*once}) == 1)


def stem(word: str) -> str:
    """A word without the ending of a plural."""
    if len(word) < 4 or word in _WHOLE or not word.endswith("s") or word.endswith(("ss", "us")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[: -2 if word.endswith(("sses", "xes", "ches", "shes", "zes")) else -1]
