"""From a prompt to what an image must show: GenEval's include clauses (class, count, colour, position)."""

from dataclasses import dataclass, replace

from varlab.errors import VarlabError, quoted
from varlab.scenes.grammar import BACKGROUNDS, COLORS, NUMBERS, PLURALS, SHAPES, TEXTURES, tokenize

_COUNTS = {word: count for count, word in NUMBERS.items()}
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


@dataclass(frozen=True)
class Clause:
    """`count` objects of a shape; `position` is (relation, index of the clause it refers to).

    A count above one is meant exactly, a count of one as "at least one". The texture is kept but not judged.
    """

    shape: str
    count: int = 1
    color: str | None = None
    texture: str | None = None
    position: tuple[str, int] | None = None


@dataclass(frozen=True)
class Requirement:
    """All clauses of a prompt, in its order; the background is kept but not judged."""

    clauses: tuple[Clause, ...]
    background: str | None = None


def parse(prompt: str) -> Requirement:
    """Reads any prompt of the grammar; raises VarlabError naming the first word that does not fit."""
    reader = _Reader(prompt)
    clauses = [_clause(reader)]
    background = None
    while reader.word():
        if reader.take("on"):
            background = _background(reader)
            break
        relation = _joiner(reader)
        if relation:
            clauses[-1] = replace(clauses[-1], position=(relation, len(clauses)))
        clauses.append(_clause(reader))
    if reader.word():
        raise reader.error("the end of the prompt")
    return Requirement(tuple(clauses), background)


class _Reader:
    """The words of a prompt and how far they are read."""

    def __init__(self, prompt: str) -> None:
        self.prompt, self.words, self.at = prompt, tokenize(prompt), 0

    def word(self) -> str:
        """The next word, empty at the end."""
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self, *accepted: str) -> str:
        """The next word if it is one of those accepted, else an empty string without moving."""
        word = self.word()
        if word not in accepted:
            return ""
        self.at += 1
        return word

    def error(self, expected: str) -> VarlabError:
        found = f"{quoted(self.word())} (word {self.at + 1})" if self.word() else "the end"
        return VarlabError(
            f"The prompt {quoted(self.prompt)} cannot be read: expected {expected}, found {found}. "
            "Write for example 'a red star above a blue ring', 'three striped green circles' "
            "or 'a ring and a square on a dark background'."
        )


def _clause(reader: _Reader) -> Clause:
    number = reader.take("a", "an", *_COUNTS)
    if not number:
        raise reader.error(f"'a', 'an' or a number ({', '.join(_COUNTS)})")
    count = _COUNTS.get(number, 1)
    color = texture = None
    while True:
        if color is None and (word := reader.take(*COLORS)):
            color = word
        elif texture is None and (word := reader.take(*TEXTURES)):
            texture = word
        else:
            break
    noun = reader.take(*(SHAPES if count == 1 else _SINGULAR))
    if not noun:
        expected = SHAPES if count == 1 else tuple(_SINGULAR)
        raise reader.error(f"a colour, a texture or a shape ({', '.join(expected)})")
    return Clause(_SINGULAR.get(noun, noun), count, color, texture)


def _joiner(reader: _Reader) -> str:
    """A relation, or an empty string for "and"."""
    if reader.take("and"):
        return ""
    if side := reader.take("left", "right"):
        if not reader.take("of"):
            raise reader.error("'of'")
        return f"{side} of"
    if word := reader.take("above", "below"):
        return word
    raise reader.error("'and', 'left of', 'right of', 'above', 'below' or 'on'")


def _background(reader: _Reader) -> str:
    reader.take("a")
    name = reader.take(*BACKGROUNDS)
    if not name or not reader.take("background"):
        raise reader.error(f"'a {BACKGROUNDS[0]} background' or 'a {BACKGROUNDS[1]} background'")
    return name
