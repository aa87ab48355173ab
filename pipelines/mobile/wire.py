"""The fields of a protobuf message, one level at a time, with nothing copied.

Serving has no `onnx` and no `protobuf`, and a file must be looked at before ONNX Runtime parses it.
Stricter than a protobuf parser, so that whatever passes here means the same there: groups, field
number 0 and varints that are too long are refused, where other parsers differ.

References:
    Protocol Buffers, Encoding (protobuf.dev/programming-guides/encoding): tags, varints, wire
    types.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Wire types 0, 1, 2 and 5; 3 and 4 are groups, which onnx.proto does not use.
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {FIXED64: 8, FIXED32: 4}
#: A 64-bit varint has at most 10 bytes, a tag (32 bits) at most 5.
_MAX_VARINT_BYTES = 10
_MAX_TAG = 2**32 - 1
_MAX_VALUE = 2**64 - 1


class WireError(ValueError):
    """The bytes are not a message of the kinds that are read here."""


class Reader:
    """Reads messages, and counts their fields so that their number is bounded over all of them."""

    def __init__(self, max_fields: int) -> None:
        """Allow so many fields in all."""
        self._left = max_fields

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
        """Field number, wire type and value of each field, in order.

        Args:
            message: its bytes.

        Yields:
            The value is an unsigned integer of a varint, else a view of the bytes.

        Raises:
            WireError: if they are cut short, too many, or of another kind.
        """
        at, end = 0, len(message)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise WireError("it has too many fields")
            tag, at = _varint(message, at)
            number, wire = tag >> 3, tag & 7
            if number == 0 or tag > _MAX_TAG:
                raise WireError("it has a field that cannot be")
            if wire == VARINT:
                value, at = _varint(message, at)
                yield number, wire, value
                continue
            if wire == BYTES:
                length, at = _varint(message, at)
            elif wire in _FIXED_BYTES:
                length = _FIXED_BYTES[wire]
            else:
                raise WireError("it has a field of an unknown kind")
            if length > end - at:
                raise WireError("it is cut short")
            yield number, wire, message[at : at + length]
            at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at a byte, and where it ends."""
    try:
        first = message[at]
        if first < 0x80:
            return first, at + 1
        value, shift = first & 0x7F, 7
        for place in range(at + 1, at + _MAX_VARINT_BYTES):
            byte = message[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > _MAX_VALUE:
                    break
                return value, place + 1
            shift += 7
    except IndexError:
        raise WireError("it is cut short") from None
    raise WireError("it has a number that is too long")


def text(value: memoryview) -> str:
    """The text in a field.

    Args:
        value: its bytes.

    Raises:
        WireError: if they are not UTF-8.
    """
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError:
        raise WireError("it has a name that is no text") from None
