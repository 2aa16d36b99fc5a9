"""The encoding of a text that does not name it: UTF-8, or what two detectors agree on.

Whoever takes every file for Windows-1252 garbles names without an error. So only the cells that are
not ASCII are looked at (the rest would only mislead), readings that no language writes are put
aside, and two independent detectors must agree on the text. Otherwise the file is refused, with
what each candidate would make of it.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import cchardet
import chardet

from reliable_imports_async.errors import EncodingInDoubt

from .source import Read

UTF_8 = "utf-8"
BLOCK = 256 * 1024
SURE_LINES = 2_000  # so many lines of valid UTF-8 that are not ASCII, and it is UTF-8
MOST_LINES = 5_000  # lines that are not UTF-8: more of them tell nothing new
MOST_CELLS = 2_000
LONGEST_CELL = 400
FEW_CELLS = 3  # detectors that agree about fewer cells may well both be wrong
SOME_CELLS = 10  # where only one of them says what is plausible
MANY_CELLS = 25  # of so many the better one is right, whatever the other says
FEW_LINES = 20  # of valid UTF-8: so few may be so by chance
SHOWN = 4

_EASTERN = ("cp932", "gb18030", "cp950", "cp949", "euc_jp")
_CANDIDATES = ("cp1252", "cp1250", "iso8859-2", "cp1254", "cp1251", "koi8-r", *_EASTERN)
_LESS_USUAL = (
    "cp1253", "cp1255", "cp1256", "cp1257", "iso8859-5", "iso8859-7", "iso8859-8", "iso8859-9",
    "iso8859-15", "cp866", "big5hkscs", "koi8-u", "mac_roman", "cp850",
)  # fmt: skip
_WIDER = {
    "ascii": UTF_8, "shift_jis": "cp932", "shift_jis_2004": "cp932", "gb2312": "gb18030",
    "gbk": "gb18030", "big5": "cp950", "euc_kr": "cp949", "johab": "cp949", "iso8859-1": "cp1252",
}  # fmt: skip
"""Encodings that detectors name, and those that hold all of their characters and more."""

_CELL = re.compile(rb'[^ ,;\t\r\n"]+')
_LINE = re.compile(rb"[^\r\n]+")
_NOT_ASCII = re.compile(rb"(?<![^\r\n])[^\r\n\x80-\xff]*+[\x80-\xff][^\r\n]*+")
_WORD = re.compile(r"[^\W\d_]+")
_JOINS = "\u2019'\u00b7\\-\u2010\u2013.&/@\u00aa\u00b0\u00ba\u05f3\u05f4"  # of names
_SYMBOL = r"(?:[^\w\s\x00-\x7f]|[\xb2\xb3\xb9\xbc-\xbe])"
_INSIDE = re.compile(rf"[^\W\d_](?![{_JOINS}]){_SYMBOL}+[^\W\d_]")  # Mu³ler
_LONE = re.compile(  # M黮ler, f〉
    r"[A-Za-z][\u3400-\u9fff\uac00-\ud7af\uff61-\uff9f][a-z]|[a-z][\u3000-\u303f]"
)
_CASES = re.compile(r"([^\W\d_])(?=([^\W\d_]))")  # read as KOI8-R: мОСКВА; as cp1250: HŽlŹne
_SCRIPTS = frozenset({"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "HALFWIDTH"})
_EAST = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "FULLWIDTH", "KATAKANA-HIRAGANA"})


@dataclass(slots=True)
class Evidence:
    """What a text that is not all ASCII looks like.

    Attributes:
        good: Lines with other characters than ASCII that are valid UTF-8.
        bad: Lines that are not.
        cells: Those of the bad lines that are not ASCII, each once.
        good_cells: Those of the good lines, where these are few.
    """

    good: int = 0
    bad: int = 0
    cells: dict[bytes, None] = field(default_factory=dict)
    good_cells: list[bytes] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        """Whether more of the file would change nothing."""
        return self.bad >= MOST_LINES or (self.good >= SURE_LINES and self.good > 10 * self.bad)

    def add(self, text: bytes) -> None:
        """Look at whole lines."""
        lines = _NOT_ASCII.findall(text)
        if _decoded(text, UTF_8) is not None:
            self._add_good(lines)
            return
        for line in lines:
            if _decoded(line, UTF_8) is not None:
                self._add_good([line])
                continue
            self.bad += 1
            for cell in _CELL.findall(line):
                if len(self.cells) < MOST_CELLS and not cell.isascii():
                    self.cells[cell[:LONGEST_CELL]] = None

    def _add_good(self, lines: list[bytes]) -> None:
        if self.good < FEW_LINES:
            cells = (cell for line in lines[:FEW_LINES] for cell in _CELL.findall(line))
            self.good_cells += [cell for cell in cells if not cell.isascii()]
        self.good += len(lines)


def guessed_encoding(read: Read) -> tuple[str, str | None]:
    """The encoding of a text, and what to tell its owner when it is a guess.

    Args:
        read: Reads the text from its beginning; it is read until the case is clear.

    Raises:
        EncodingInDoubt: Its bytes can be read in more than one way.
    """
    evidence = Evidence()
    for lines in _pieces(read):
        evidence.add(lines)
        if evidence.is_enough:
            break
    if not evidence.bad:
        return UTF_8, None
    if evidence.good >= evidence.bad and not _by_chance(evidence):
        return UTF_8, (
            "The encoding of the file is UTF-8, but some of its lines are not valid UTF-8; each of "
            "those fails by itself."
        )
    found = _detected(evidence.cells, also_utf_8=evidence.good * 20 > evidence.bad)
    sample = ", ".join(_samples(evidence.cells, found))
    return found, f"The file does not say its encoding. It was read as {found}: {sample}."


def _by_chance(evidence: Evidence) -> bool:
    """Whether the few lines of valid UTF-8 are as well East Asian text, like all the others."""
    if evidence.good >= FEW_LINES:
        return False
    data = b"\n".join((*evidence.cells, *evidence.good_cells))
    texts = (_decoded(data, encoding) for encoding in _EASTERN)
    return any(text is not None and is_plausible(text) for text in texts)


def wide_encoding(sample: bytes) -> str | None:
    """UTF-16 without a byte order mark, by the zero bytes of its ASCII; or ISO-2022-JP."""
    if b"\x1b$" in sample and sample.isascii():
        return "iso2022_jp"
    size = len(sample) // 2
    for encoding, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        if size >= 4 and zeros.count(0) * 10 >= size * 4 and sample.count(0) < size * 1.2:
            return encoding
    return None


def _pieces(read: Read) -> Iterator[bytes]:
    """The text in whole lines, without most of those that are ASCII."""
    rest = b""
    while block := read(BLOCK):
        if not rest and block.isascii():
            continue
        block = rest + block
        cut = max(block.rfind(b"\n"), block.rfind(b"\r")) + 1
        if not cut and len(block) < 4 * BLOCK:
            rest = block
            continue
        lines, rest = (block[:cut], block[cut:]) if cut else (block, b"")
        if not lines.isascii():
            yield lines
        if rest.isascii():
            rest = b""
    if rest:
        yield rest


def _detected(cells: dict[bytes, None], *, also_utf_8: bool) -> str:
    """The encoding of cells that are not all UTF-8.

    Args:
        also_utf_8: Whether too many lines are UTF-8 for a chance.

    Raises:
        EncodingInDoubt: More than one reading is possible.
    """
    data = b"\n".join(cells)
    votes = [_known(detect(data)["encoding"], data) for detect in (cchardet.detect, chardet.detect)]
    readings: dict[str, list[str]] = {}
    for encoding in dict.fromkeys((*_CANDIDATES, *filter(None, votes))):
        text = _decoded(data, encoding)
        if text is not None and is_plausible(text):
            readings.setdefault(text, []).append(encoding)
    if not also_utf_8:
        if len(readings) == 1:
            [encodings] = readings.values()
            if encodings[0] not in _EASTERN or encodings[0] in votes:
                return encodings[0]
        possible = [vote for vote in votes if vote and _decoded(data, vote) in readings]
        differ = len({_decoded(data, vote) for vote in possible}) > 1
        needed = MANY_CELLS if differ else FEW_CELLS if len(possible) > 1 else SOME_CELLS
        if possible and len(cells) >= needed:
            return possible[0]
    names = [encodings[0] for encodings in readings.values()]
    if also_utf_8:
        names.insert(0, UTF_8)
    raise EncodingInDoubt({name: _samples(cells, name) for name in names})


def _known(name: str | None, data: bytes) -> str | None:
    """The codec for what a detector says, if it is one that files are written in."""
    try:
        found = codecs.lookup(name or "").name
    except LookupError:
        return None
    found = _WIDER.get(found, found)
    if found == "cp950" and _decoded(data, found) is None:
        found = "big5hkscs"
    return found if found in (*_CANDIDATES, *_LESS_USUAL) else None


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def is_plausible(text: str) -> bool:
    """Whether some language may be written like this: one script a word, no symbols within it."""
    if any(_is_odd(char) for char in set(text)):
        return False
    words = _WORD.findall(text)
    strange: int = sum(map(_is_mixed, words))
    strange += len(_INSIDE.findall(text)) + len(_LONE.findall(text))
    strange += sum(
        first.islower() and second.isupper() and not second.isascii()
        for first, second in _CASES.findall(text)
    )
    return strange <= len(words) // 50


def _is_mixed(word: str) -> bool:
    """Whether a word has letters of two scripts, other than a Latin name in an East Asian text."""
    scripts = [_script(char) for char in word if not char.isascii()]
    latin = len(scripts) < len(word)
    kinds = {*scripts} - {""}
    if latin and kinds == {"EAST"}:
        return len(scripts) == 1 and any("a" <= char <= "z" for char in word)
    return len(kinds | ({"LATIN"} if latin else set())) > 1


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    name = unicodedata.name(char, "").partition(" ")[0]
    if unicodedata.category(char) == "Lm" and name != "HALFWIDTH":
        return ""
    return "EAST" if name in _EAST else name if name in _SCRIPTS else ""


@lru_cache(maxsize=4096)
def _is_odd(char: str) -> bool:
    if "\u2500" <= char <= "\u259f":  # what draws tables
        return True
    return char not in "\t\r\n" and unicodedata.category(char) in {"Cc", "Cn", "Co"}


def _samples(cells: Iterable[bytes], encoding: str) -> list[str]:
    """How some words read in an encoding."""
    shown: dict[str, None] = {}
    for cell in cells:
        for word in cell.decode(encoding, "replace").split():
            if not word.isascii() and len(shown) < SHOWN:
                shown[word[:30]] = None
    return list(shown)
