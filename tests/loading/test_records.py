"""Any record becomes storable text or a reason; nothing raises, nothing is altered."""

import dataclasses
import json
import math
import sys
from collections import OrderedDict, UserDict
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from reliable_imports_async.errors import ConfigurationError

from .reach import Limits, from_json, from_parsed, from_value, unreadable

quick = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

nasty_text = st.text(st.characters()) | st.sampled_from(
    ["\0", "\\u0000", "NaN", "\ud800", "😀", "\\", '"', "a\0b", "Infinity", "null"]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | st.decimals()
    | nasty_text
    | st.binary(max_size=5)
    | st.datetimes()
    | st.uuids()
    | st.complex_numbers()
    | st.builds(lambda: 10**5000)
    | st.builds(object)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(nasty_text | st.integers() | st.none() | st.binary(), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(iter, st.lists(inner, max_size=3))
        | st.frozensets(st.integers(), max_size=3)
    ),
    max_leaves=12,
)
storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
storable = st.dictionaries(
    storable_text,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | storable_text,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(storable_text, inner, max_size=4)
        ),
        max_leaves=12,
    ),
    max_size=6,
)


json_like = st.lists(
    st.sampled_from(
        [*'{}[],:"\\ \n', '"a":', '"b"', "1", "1e999", "\\u0000", "\\ud800", "NaN", "é"]
    )
).map(lambda parts: f"{{{''.join(parts)}}}".encode())


def require_stored_or_explained(record: Any) -> None:
    if record.text is None:
        assert isinstance(record.raw, bytes)
        assert record.reason
        assert "\0" not in record.reason
        record.reason.encode()
    else:
        assert record.raw is record.reason is None
        text = record.text.decode()
        assert isinstance(json.loads(text), dict)


@quick
@given(anything)
def test_no_value_raises(value):
    require_stored_or_explained(from_value(value, line=3))
    require_stored_or_explained(from_value({"a": value}))


@quick
@given(st.binary() | json_like)
def test_no_bytes_raise(raw):
    record = from_json(raw, line=7)
    require_stored_or_explained(record)
    assert record.line == 7
    assert record.text in {None, raw}
    assert record.raw in {None, raw}


flat = st.lists(
    st.tuples(
        st.sampled_from(['"a"', '"b"', '"\\u0061"', '"é"', '""']),
        st.sampled_from(
            [
                '"a"',
                '"\\""',
                '"\\u0000"',
                r'"\ud83d\ude00"',
                r'"\uD800"',
                r'"\\"',
                r'"\n"',
                "1",
                "-0",
                "1.10",
                "1e23",
                "NaN",
                "null",
                "[]",
            ]
        ),
    ),
    max_size=4,
).map(lambda pairs: f"{{{', '.join(f'{name}: {value}' for name, value in pairs)}}}".encode())


@quick
@given(json_like | flat)
def test_what_was_read_already_is_stored_as_if_it_were_read_again(raw):
    try:
        value = json.loads(raw)
    except ValueError:
        return
    assert from_parsed(raw, value) == from_json(raw, line=None)


@quick
@given(storable)
def test_what_can_be_stored_is_stored_unaltered(value):
    assert json.loads(from_value(value).text or b"null") == value
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        record = from_json(text.encode(), line=1)
        assert json.loads(record.text or b"null") == value


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")


class UnshowableError(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Exploding(UserDict[str, object]):
    def keys(self):
        raise UnshowableError


def broken_generator():
    yield 1
    raise LookupError("gone\0\ud800")


def circular():
    result: dict[str, object] = {}
    result["me"] = result
    return result


def deep(levels):
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        {"a": Unshowable()},
        Unshowable(),
        Exploding(),
        {"a": Exploding()},
        {"a": broken_generator()},
        circular(),
        deep(65),
        deep(300),
        deep(5_000),
        {"a": b"\xff"},
        {"a": math.nan},
        {"a": [[math.inf]]},
        {"a": "\ud800"},
        {"\udfff": 1},
        {"a": "\0"},
        {"\0": 1},
        {"a": 10**4300},
        {"a": -(10**4300)},
        {"1": 1, 1: 2},
        {"a": {"true": 1, True: 2}},
        {"a": "x" * 1_048_576},
        [1],
        [("a", 1)],
        "text",
        b"bytes",
        12,
        1.5,
        None,
        True,
        dict,
        sys,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_stored_says_why_and_keeps_something(value):
    record = from_value(value, line=4)
    assert record.text is None
    assert record.line == 4
    assert record.reason
    assert record.raw
    record.reason.encode()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({}, "{}"),
        ({"text": "NaN", "more": "Infinity"}, None),
        ({"text": "\\u0000 \\ud800"}, None),
        ({"text": "\x01\x7f\u2028😀"}, None),
        ({"amount": Decimal("1.10")}, '{"amount":"1.10"}'),
        ({"big": 10**4299, "bigger": 2**70}, None),
        ({1: "a", None: "b"}, '{"1":"a","None":"b"}'),
        ({"set": {1}, "bytes": b"ok"}, '{"set":[1],"bytes":"ok"}'),
        (OrderedDict(a=1), '{"a":1}'),
        (UserDict(a=1), '{"a":1}'),
        ({"a": UserDict(b=[UserDict()])}, '{"a":{"b":[{}]}}'),
        (deep(64), None),
        ({"tiny": 5e-324, "huge": 1.7e308}, None),
        ({"exact": 1e22}, '{"exact":1e+22}'),
        ({"inexact": 1e23}, '{"inexact":100000000000000000000000.0}'),
    ],
)
def test_what_looks_suspicious_but_is_fine(value, stored):
    text = from_value(value).text
    assert text is not None
    if stored is None:
        assert json.loads(text) == value
    else:
        assert text.decode() == stored


class Model(BaseModel):
    price: float | None
    parts: list["Model"] = []


@dataclasses.dataclass
class Holder:
    model: Model | None


def test_a_model_does_not_turn_nan_into_null():
    assert from_value(Model(price=None)).text == b'{"price":null,"parts":[]}'
    for value in (
        Model(price=math.nan),
        Model(price=1, parts=[Model(price=-math.inf)]),
        {"model": [Model(price=math.nan)]},
        Holder(Model(price=math.nan)),
    ):
        record = from_value(value)
        assert record.text is None
        assert "which JSON cannot represent" in (record.reason or "")
    assert from_value(Holder(None)).text == b'{"model":null}'


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a":1,"b":2,"a":3}', "key 'a' occurs twice"),
        (b'{"x":{"\\u0061":1,"a":3}}', "key 'a' occurs twice"),
        (b'{"a":NaN}', "it contains NaN, which JSON cannot represent"),
        (b'{"a":-Infinity}', "it contains -Infinity, which JSON cannot represent"),
        (b'{"a":"\xe9"}', "it is not UTF-8: byte 6 is 0xe9"),
        (b'{"a":"\\u0000"}', "it contains a NUL character, which PostgreSQL cannot store"),
        (b'{"a":"\\\\\\u0000"}', "it contains a NUL character, which PostgreSQL cannot store"),
        (b'{"a":"\\uD83dx"}', "it contains half a character (the lone surrogate \\uD83d)"),
        (b'{"a":"\\ud83d\\\\ude00"}', "it contains half a character (the lone surrogate \\ud83d)"),
        (b'{"a":"\\ude00\\ud83d"}', "it contains half a character (the lone surrogate \\ude00)"),
        (b'{"a":1e400}', "the number 1e400 cannot be stored without loss"),
        (b'{"a":-1E400}', "the number -1E400 cannot be stored without loss"),
        (b'{"a":1e-400}', "the number 1e-400 cannot be stored without loss"),
        (b'{"a":0e-99999}', "the number 0e-99999 cannot be stored without loss"),
        (b'{"a":1e23,"b":1e999999999}', "the number 1e999999999 cannot be stored without loss"),
        (b'{"a":[1]', "it is not JSON: Expecting ',' delimiter at character 8"),
        (b"[1]", "it is a list, not a JSON object"),
        (b'"a"', "it is a text, not a JSON object"),
        (b"1", "it is a number, not a JSON object"),
        (b"null", "it is null, not a JSON object"),
        (b"", "it is not JSON: Expecting value at character 0"),
        (b"\xef\xbb\xbf{}", "it is not JSON: Expecting value at character 0"),
        (b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "it is nested more than 64 levels deep"),
        (b'{"a":' + b"[" * 99_999, "it is nested more than 64 levels deep"),
        (b'{"a":' + b"9" * 4301 + b"}", "a number in it has 4,301 digits; at most 4,300 are all"),
        (b'{"a":0.' + b"9" * 16_001 + b"}", "the number 0.9999"),
        (b'{"a":' + b"9" * 400 + b".5}", "the number 9999"),
        (b'{"a":"\n"}', "it is not JSON: Invalid control character at at character 6"),
    ],
)
def test_json_that_cannot_be_stored(raw, reason):
    record = from_json(raw, line=9)
    assert (record.text, record.raw, record.line) == (None, raw, 9)
    assert (record.reason or "").startswith(reason)


@pytest.mark.parametrize(
    "raw",
    [
        b' \t\r\n{ "a" : 1.10 } \n',
        b'{"a":"\\\\u0000 \\\\ud83d NaN 1e400 [[[["}',
        b'{"a":"\\ud83d\\ude00\\u00e9"}',
        b'{"a":"' + b"[{" * 100 + b'\\""}',
        b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"a":"' + b"9" * 5_000 + b'"}',
        b'{"a":1e22,"b":1E+5,"c":-1.5e-300,"d":0e0,"e":9007199254740993e0}'.replace(b"93e", b"92e"),
        b'{"":""}',
    ],
)
def test_json_is_stored_as_written(raw):
    assert from_json(raw, line=1).text == raw


def test_only_a_number_that_would_change_is_written_out():
    record = from_json(b'{"1e23":[1e23, 1e22,"1e23",-9.5E+30,9007199254740993.00e0]}', line=1)
    assert record.text == (
        b'{"1e23":[100000000000000000000000.0, 1e22,"1e23",-9500000000000000000000000000000.0,'
        b"9007199254740993.00]}"
    )


def test_limits():
    limits = Limits(record_bytes=20, depth=2)
    assert from_value({"a": "x" * 12}, limits=limits).text
    for record in (
        from_value({"a": "x" * 13}, line=1, limits=limits),
        from_json(b'{"a":"xxxxxxxxxxxxx"}', line=1, limits=limits),
    ):
        assert record.text is None
        assert record.raw == b'{"a":"xxxxxxxxxxxxx"'
        assert record.reason == (
            "it is 21 bytes long as JSON; at most 20 are allowed (only its first 20 bytes are kept)"
        )
    assert from_json(b'{"a":[1]}', line=1, limits=limits).text
    assert from_json(b'{"a":[[]]}', line=1, limits=limits).text is None
    for wrong in ({"record_bytes": 0}, {"depth": 0}, {"depth": 501}, {"record_bytes": 2**28}):
        with pytest.raises(ConfigurationError):
            Limits(**wrong)


def test_unreadable_keeps_the_beginning_and_a_storable_reason():
    record = unreadable(b"abc", line=2, reason="no\0 \ud800", limits=Limits(record_bytes=2))
    assert (record.text, record.raw, record.line) == (None, b"ab", 2)
    assert record.reason == "no\\0 \\ud800 (only its first 2 bytes are kept)"


def test_raw_is_what_was_read_or_the_best_rendition():
    assert from_value({"a": "\0"}, raw=b"a\n\0").raw == b"a\n\0"
    assert from_value({"a": "\0"}).raw == b'{"a":"\\u0000"}'
    assert from_value({"a": math.nan}).raw == b'{"a":NaN}'
    assert (
        from_value({"a": "\ud800", "b": b"\xff"}).raw
        == b'{"a": "\xed\xa0\x80", "b": "b\'\\\\xff\'"}'
    )
    assert from_value(circular()).raw == b"{'me': {...}}"
    assert from_value(Unshowable()).raw == b"(a value that cannot be shown)"
