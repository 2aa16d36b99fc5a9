"""Refuses files that are not text, such as workbooks and archives, by their first bytes.

The error names the kind of file and says what to do with it.
"""

import re
import zipfile
from typing import BinaryIO

from ...errors import SourceError
from .compression import compression_by_magic

_SAVE_AS = "open it in the program that it belongs to and save it as CSV (UTF-8)"
_UNPACK = "unpack it and import the file inside"
_OTHER = "check that it is the right file"
_ZIP, _OLE = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_WORKBOOK = "save the sheet as CSV (UTF-8) in Excel or LibreOffice, and import the CSV file"

_SIGNATURES = (
    (b"PK\x05\x06", "an empty ZIP archive", _OTHER),
    (b"%PDF-", "a PDF document", "a PDF has no records; ask for the data as CSV or JSON"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", _OTHER),
    (b"\xff\xd8\xff", "a JPEG image", _OTHER),
    (b"GIF87a", "a GIF image", _OTHER),
    (b"GIF89a", "a GIF image", _OTHER),
    (b"II*\0", "a TIFF image", _OTHER),
    (b"MM\0*", "a TIFF image", _OTHER),
    (b"RIFF", "a RIFF (image, sound or video) file", _OTHER),
    (b"{\\rtf", "an RTF document", _SAVE_AS),
    (b"SQLite format 3\0", "an SQLite database", "export the table as CSV: sqlite3 -header -csv"),
    (b"PAR1", "a Parquet file", "convert it to CSV or JSON Lines"),
    (b"ARROW1", "an Arrow file", "convert it to CSV or JSON Lines"),
    (b"FEA1", "a Feather file", "convert it to CSV or JSON Lines"),
    (b"ORC", "an ORC file", "convert it to CSV or JSON Lines"),
    (b"Obj\x01", "an Avro file", "convert it to CSV or JSON Lines"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "convert it to CSV or JSON Lines"),
    (b"\x80\x03", "a Python pickle", "convert it to CSV or JSON Lines"),
    (b"\x80\x04\x95", "a Python pickle", "convert it to CSV or JSON Lines"),
    (b"\x80\x05\x95", "a Python pickle", "convert it to CSV or JSON Lines"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", _UNPACK),
    (b"\x04\x22\x4d\x18", "compressed by lz4", _UNPACK),
    (b"LZIP", "compressed by lzip", _UNPACK),
    (b"\x1f\x9d", "compressed by compress (.Z)", _UNPACK),
    (b"\x7fELF", "a program (ELF)", _OTHER),
    (b"\xca\xfe\xba\xbe", "a program (Java class or Mach-O)", _OTHER),
    (b"\0asm", "a program (WebAssembly)", _OTHER),
    (b"!<arch>\n", "a program library", _OTHER),
)
_IN_ZIP = (
    (b"xl/workbook.bin", "an Excel workbook (.xlsb)", _WORKBOOK),
    (b"xl/", "an Excel workbook (.xlsx)", _WORKBOOK),
    (b"word/", "a Word document (.docx)", _SAVE_AS),
    (b"ppt/", "a PowerPoint presentation (.pptx)", _SAVE_AS),
    (b"Index/", "a Numbers or Pages document", _SAVE_AS),
)
_BINARY_ONLY = {
    b"ORC",
    b"PAR1",
    b"RIFF",
    b"LZIP",
    b"ARROW1",
    b"FEA1",
}  # a header may, too
_TAR_AT, _TAR = 257, b"ustar"
_MARKUP = re.compile(
    rb"\s*+(?:<!--(?:[^-]|-(?!->))*+-->\s*+)*+<(!doctype\s+html|html|head|body|table|!doctype|\?xml|svg)[\s>/]",
    re.DOTALL | re.IGNORECASE,
)
_HTML_TAG = re.compile(rb"<html[\s>]|<table[\s>]", re.IGNORECASE)
_HTML = {b"html", b"head", b"body", b"table"}
_CONTROLS = bytes(sorted({*range(32), 127} - set(b"\t\n\v\f\r\x1a\x1b")))
FEW_CONTROLS, CONTROL_SHARE = 16, 0.05


def refuse_other_files(sample: bytes, file: BinaryIO | None) -> None:
    """Refuse a file that has the signature of another kind of file.

    Args:
        sample: The first bytes, decompressed.
        file: The whole file if it is not compressed, to read the names in a ZIP archive.

    Raises:
        SourceError: The file is a workbook, an archive, a document, an image or a program.
    """
    if sample.startswith((_ZIP, _OLE)):
        raise _refused(*(_zip(sample, file) if sample.startswith(_ZIP) else _ole(sample)))
    for signature, kind, hint in _SIGNATURES:
        if sample.startswith(signature) and (
            signature not in _BINARY_ONLY or _has_controls(sample)
        ):
            raise _refused(kind, hint)
    if sample[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
        raise _refused("a tar archive", _UNPACK)
    if sample.startswith(b"\x1f\x8b"):
        raise _refused("gzip data inside gzip data", "unpack it once, and import the result")
    if compression_by_magic(sample) is not None:
        raise _refused("compressed twice", _UNPACK)
    if sample.startswith(b"MZ") and _has_controls(sample):
        raise _refused("a program (Windows)", _OTHER)


def refuse_markup(text: bytes) -> None:
    """Refuse HTML and XML.

    Args:
        text: The first text of the file, in an encoding that extends ASCII.

    Raises:
        SourceError: It is HTML or XML.
    """
    match = _MARKUP.match(text)
    if match is None:
        return
    if b"urn:schemas-microsoft-com:office:spreadsheet" in text:
        raise _refused("an Excel workbook (XML Spreadsheet 2003)", _WORKBOOK)
    name = match[1].lower()
    if name.split()[-1] in _HTML or _HTML_TAG.search(text[:4096]):
        raise _refused(
            "an HTML page",
            "it may be a sign-in page or an error page; download the data itself as CSV or JSON",
        )
    raise _refused("an XML file", "convert its records to CSV or JSON Lines")


def refuse_binary(sample: bytes) -> None:
    """Refuse a file with more control characters than a text has.

    Raises:
        SourceError: It is not text in an encoding that extends ASCII.
    """
    count = len(sample) - len(sample.translate(None, _CONTROLS))
    if count >= FEW_CONTROLS and count >= CONTROL_SHARE * len(sample):
        raise _refused("a binary file, not text", _OTHER)


def _has_controls(sample: bytes) -> bool:
    head = sample[:512]
    return len(head.translate(None, _CONTROLS)) < len(head)


def _zip(sample: bytes, file: BinaryIO | None) -> tuple[str, str]:
    if b"opendocument.spreadsheet" in sample[:200]:
        return "an OpenDocument workbook (.ods)", _WORKBOOK
    if b"opendocument" in sample[:200]:
        return "an OpenDocument file", _SAVE_AS
    names = _names(file) if file is not None else []
    content = "\n".join(names).encode() or sample
    for part, kind, hint in _IN_ZIP:
        if part in content:
            return kind, hint
    inside = f" with {', '.join(names[:3])}" if names else ""
    return f"a ZIP archive{inside}", _UNPACK


def is_archive(head: bytes, file: BinaryIO) -> bool:
    """Whether a file is a ZIP archive of files, and not a document that is written as one."""
    if not head.startswith(_ZIP):
        return False
    file.seek(0)
    sample, names = file.read(200), _names(file)
    content = "\n".join(names).encode()
    return (
        bool(names)
        and b"opendocument" not in sample
        and not any(part in content for part, _, _ in _IN_ZIP)
    )


def _names(file: BinaryIO) -> list[str]:
    """The names in an archive; none if it is damaged."""
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            return [name.encode(errors="replace").decode() for name in archive.namelist()[:1000]]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []


def _ole(sample: bytes) -> tuple[str, str]:
    def has(name: str) -> bool:
        return name.encode("utf-16-le") in sample

    if has("EncryptedPackage"):
        return "an encrypted Office document", f"open it with its password and {_WORKBOOK}"
    if has("WordDocument"):
        return "an old Word document (.doc)", _SAVE_AS
    return "an old Excel workbook (.xls), or another old Office document", _WORKBOOK


def _refused(kind: str, hint: str) -> SourceError:
    return SourceError(
        f"The file is {kind}. Only CSV, TSV, JSON and JSON Lines can be imported.", hint=f"{hint}."
    )
