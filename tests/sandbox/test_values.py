"""Values that cross between processes: equal after decoding, and harmless if malformed."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.sandbox.values import decode, encode

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
KEYS = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner), max_leaves=5)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner) | st.sets(KEYS) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


def refer(value: object) -> bytes:
    return b"o7;"


def resolve(kind: bytes, name: bytes) -> Any:
    return kind, name


def shape(value: Any) -> Any:
    """A value with the types of everything in it, and the signs of zeros."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(each)) for key, each in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [shape(each) for each in value]
    return type(value), value, math.copysign(1, value) if isinstance(value, float) else 0


@given(DATA)
def test_data_are_the_same_after_decoding(value: Any) -> None:
    assert shape(decode(encode(value, refer), resolve)) == shape(value)


@given(st.binary(max_size=60) | DATA.map(lambda value: encode(value, refer)[:-1]))
def test_malformed_bytes_raise_an_exception_or_give_data(content: bytes) -> None:
    try:
        decode(content, resolve)
    except Exception as error:
        assert str(error) or type(error)


@pytest.mark.parametrize(
    "content", [b"nt3;s2;oss6;systemt1;s4;true", b"nt3;s8;builtinss4;evalt1;s1;1", b"l7fffffff;N", b"s-1;x"]
)
def test_a_description_builds_nothing_but_known_types(content: bytes) -> None:
    with pytest.raises(ValueError, match="malformed value"):
        decode(content, resolve)


def test_an_object_is_a_reference() -> None:
    assert decode(encode([object(), print], refer), resolve) == [(b"o", b"7"), (b"o", b"7")]
