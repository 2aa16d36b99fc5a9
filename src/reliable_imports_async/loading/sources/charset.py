"""Detects the encoding of a text that does not declare it: UTF-8, or an encoding that is certain.

Reading every file as Windows-1252 would corrupt names without an error. So only the values that are
not ASCII are examined, because all others would mislead; readings that no language writes are
discarded, and two independent detectors must agree on the text. Otherwise the file is refused,
with a sample of each possible reading.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import cchardet
import chardet

from ...errors import EncodingInDoubt
from .source import Read

UTF_8 = "utf-8"
BLOCK = 256 * 1024
SURE_LINES = 2_000  # with this many lines of valid UTF-8 that are not ASCII, the file is UTF-8
MOST_LINES = 5_000  # more lines that are not UTF-8 add no evidence
MOST_VALUES = 2_000
LONGEST_VALUE = 400
FEW_VALUES = 3  # two detectors that agree need this many values,
SOME_VALUES = 10  # a plausible answer of only one detector this many,
MANY_VALUES = 25  # and the better of two different plausible answers this many
FEW_LINES = 20  # fewer lines may be valid UTF-8 by chance
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
"""Encodings that detectors name, and the encodings that extend them."""

_VALUE = re.compile(rb'[^ ,;\t\r\n"]+')
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
    """The evidence for the encoding of a text that is not all ASCII.

    Attributes:
        good: The number of lines that are valid UTF-8 but not ASCII.
        bad: The number of lines that are not valid UTF-8.
        values: The distinct values of the bad lines that are not ASCII.
        good_values: The values of the first good lines that are not ASCII.
    """

    good: int = 0
    bad: int = 0
    values: dict[bytes, None] = field(default_factory=dict)
    good_values: list[bytes] = field(default_factory=list)

    @property
    def is_enough(self) -> bool:
        """Whether the rest of the file would not change the result."""
        return self.bad >= MOST_LINES or (self.good >= SURE_LINES and self.good > 10 * self.bad)

    def add(self, text: bytes) -> None:
        """Examine whole lines."""
        lines = _NOT_ASCII.findall(text)
        if _decoded(text, UTF_8) is not None:
            self._add_good(lines)
            return
        for line in lines:
            if _decoded(line, UTF_8) is not None:
                self._add_good([line])
                continue
            self.bad += 1
            for value in _VALUE.findall(line):
                if len(self.values) < MOST_VALUES and not value.isascii():
                    self.values[value[:LONGEST_VALUE]] = None

    def _add_good(self, lines: list[bytes]) -> None:
        if self.good < FEW_LINES:
            values = (value for line in lines[:FEW_LINES] for value in _VALUE.findall(line))
            self.good_values += [value for value in values if not value.isascii()]
        self.good += len(lines)


def guessed_encoding(read: Read) -> tuple[str, str | None]:
    """The encoding of a text, and a note for the user if it is a guess.

    Args:
        read: Reads the text from its beginning; it is read until the evidence suffices.

    Raises:
        EncodingInDoubt: The bytes can be read in more than one way.
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
            "The file is UTF-8, but some of its lines are not valid UTF-8; the records in those "
            "lines fail."
        )
    encoding = _detected(evidence.values, also_utf_8=evidence.good * 20 > evidence.bad)
    sample = ", ".join(_samples(evidence.values, encoding))
    note = f"The file does not declare its encoding. It was read as {encoding}: {sample}."
    return encoding, note


def wide_encoding(sample: bytes) -> str | None:
    """UTF-16 without a byte order mark, detected by the zero bytes of its ASCII; or ISO-2022-JP."""
    if b"\x1b$" in sample and sample.isascii():
        return "iso2022_jp"
    size = len(sample) // 2
    for encoding, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        if size >= 4 and zeros.count(0) * 10 >= size * 4 and sample.count(0) < size * 1.2:
            return encoding
    return None


def is_plausible(text: str) -> bool:
    """Whether a language may be written like this: one script per word, no symbols inside it."""
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


def _by_chance(evidence: Evidence) -> bool:
    """Whether all lines, including the few that are valid UTF-8, may be East Asian text."""
    if evidence.good >= FEW_LINES:
        return False
    data = b"\n".join((*evidence.values, *evidence.good_values))
    texts = (_decoded(data, encoding) for encoding in _EASTERN)
    return any(text is not None and is_plausible(text) for text in texts)


def _pieces(read: Read) -> Iterator[bytes]:
    """The text in pieces of whole lines, without most of the lines that are ASCII."""
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


def _detected(values: dict[bytes, None], *, also_utf_8: bool) -> str:
    """The encoding of values that are not all UTF-8.

    Args:
        values: The values.
        also_utf_8: Whether too many lines are UTF-8 for this to be chance.

    Raises:
        EncodingInDoubt: More than one reading is possible.
    """
    data = b"\n".join(values)
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
        needed = MANY_VALUES if differ else FEW_VALUES if len(possible) > 1 else SOME_VALUES
        if possible and len(values) >= needed:
            return possible[0]
    names = [encodings[0] for encodings in readings.values()]
    if also_utf_8:
        names.insert(0, UTF_8)
    raise EncodingInDoubt({name: _samples(values, name) for name in names})


def _known(name: str | None, data: bytes) -> str | None:
    """The codec for a detector's answer, if it is a usual encoding of files."""
    try:
        codec = codecs.lookup(name or "").name
    except LookupError:
        return None
    codec = _WIDER.get(codec, codec)
    if codec == "cp950" and _decoded(data, codec) is None:
        codec = "big5hkscs"
    return codec if codec in (*_CANDIDATES, *_LESS_USUAL) else None


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _is_mixed(word: str) -> bool:
    """Whether a word has letters of two scripts, apart from a Latin name in an East Asian text."""
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
    if "\u2500" <= char <= "\u259f":  # box-drawing characters
        return True
    return char not in "\t\r\n" and unicodedata.category(char) in {"Cc", "Cn", "Co"}


def _samples(values: Iterable[bytes], encoding: str) -> list[str]:
    """Some words, read in an encoding."""
    words: dict[str, None] = {}
    for value in values:
        for word in value.decode(encoding, "replace").split():
            if not word.isascii() and len(words) < SHOWN:
                words[word[:30]] = None
    return list(words)
