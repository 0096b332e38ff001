"""Tells by the headers of an H.264 stream whether any of it is missing, without decoding a picture.

Reference pictures are numbered (`frame_num`), so a lost one leaves a gap. Nor does a whole stream have headers that
cannot be read, or three zeros in a row. A decoder that gets a whole stream need not conceal anything: what it makes of
a picture depends on that picture and its references alone. Rare ways to number pictures count as missing something.

Source: ITU-T H.264, 7.3 (syntax), 7.4.3 (`frame_num`), Annex B (start codes); ISO/IEC 14496-15 (avcC).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_SLICE, _IDR, _SEQUENCE, _PICTURE = 1, 5, 7, 8
_PARTITIONS = (2, 3, 4)  # slices in parts, which may be missing one by one
_WITH_CHROMA_FORMAT = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 144, 244)  # profiles
_P, _B, _I = range(3)  # types of slices
_HEADER_BYTES = 512  # more than a header has


class FaultyError(ValueError):
    """Something of the stream is missing, or not as it must be."""


@dataclass(frozen=True)
class _Sequence:
    """Of a sequence parameter set, what slice headers depend on."""

    has_chroma: bool
    frame_num_bits: int
    order_bits: int  # 0 if pictures are presented as they come
    only_frames: bool


@dataclass(frozen=True)
class _Picture:
    """Of a picture parameter set, what slice headers depend on."""

    sequence: int
    cabac: bool
    has_order: bool
    num_references: tuple[int, int]
    weighted: bool
    weighted_both: bool
    qp: int
    has_deblocking: bool
    has_redundant: bool


@dataclass(frozen=True)
class _Header:
    """What the header of each slice says of the picture."""

    is_idr: bool
    is_reference: bool
    number: int
    modulus: int  # numbers begin again with 0 after this many
    field: int  # 0: of a frame, 1: of the upper field, 2: of the lower one
    order: int  # of presentation
    order_modulus: int  # 0 if pictures are presented as they come


class H264Headers:
    """Follows the headers of a stream, packet by packet.

    Args:
        extradata: Parameter sets as FFmpeg has them. In an avcC box they also tell that packets give the length of
            each unit; otherwise units begin with start codes.

    Attributes:
        whole: Whether nothing was found to be missing so far.
        proven: Whether, besides, each packet gives one frame, of as many slices as the others, so that none of these is
            missing, and with CABAC: without, FFmpeg carries damage on to frames that do not refer to it.
        orders: For each packet the number of its IDR picture, and its own place in the order of presentation after it.
    """

    def __init__(self, extradata: bytes) -> None:
        self.whole = self.proven = True
        self.orders: list[tuple[int, int]] = []
        self._length_size = 0
        self._sequences: dict[int, _Sequence] = {}
        self._pictures: dict[int, _Picture] = {}
        self._previous: _Header | None = None  # of the last picture
        self._number: int | None = None  # of the last reference
        self._order = 0  # of the last reference
        self._num_idr = 0
        self._num_slices = 0  # of each picture
        if extradata[:1] == b"\1":
            self._length_size = (extradata[4] & 3) + 1 if len(extradata) > 4 else 4
            self._follow(_in_box(extradata))
        else:
            self._follow(_after_start_codes(extradata))

    def add(self, packet: bytes) -> None:
        """Takes note of the next packet."""
        if self.whole:
            pictures = self._follow(split_units(packet, self._length_size))
            self.proven &= pictures == 1

    def _follow(self, units: Iterator[bytes]) -> int:
        """Reads units; returns how many pictures they hold, a field counting as two, since it needs another."""
        counts: list[int] = []  # of slices, for each picture
        picture = None
        try:
            for unit in units:
                found = self._read(unit)
                if found is None:
                    continue
                is_first, header = found
                if is_first:
                    self._compare(header)
                    picture = header
                    counts.append(0)
                elif header != picture:
                    raise FaultyError
                counts[-1] += 1
        except (FaultyError, LookupError):  # LookupError: no such parameter set
            self.whole = self.proven = False
            return 0
        self._num_slices = self._num_slices or sum(counts[:1])
        self.proven &= all(count == self._num_slices for count in counts)
        return len(counts) + bool(picture and picture.field)

    def _read(self, unit: bytes) -> tuple[bool, _Header] | None:
        """The header of a slice and whether it is the picture's first, None for other units; keeps parameter sets."""
        if not unit or unit[0] & 0x80 or b"\0\0\0" in unit or unit[0] & 31 in _PARTITIONS:
            raise FaultyError
        kind = unit[0] & 31
        if kind == _SEQUENCE:
            number, sequence = _read_sequence(_Bits(unit[1:]))
            self._sequences[number] = sequence
        elif kind == _PICTURE:
            number, picture = _read_picture(_Bits(unit[1:]))
            self._pictures[number] = picture
            self.proven &= picture.cabac
        elif kind in (_SLICE, _IDR):
            return _read_slice(unit, self._sequences, self._pictures)
        return None

    def _compare(self, header: _Header) -> None:
        """Compares the number of a picture with that of the last reference, and notes its order."""
        previous = self._previous
        self._previous = header
        is_second_field = (
            previous is not None
            and header.field
            and previous.field == 3 - header.field
            and previous.number == header.number
        )
        if is_second_field:
            self._previous = None  # the next field begins another frame
        elif header.is_idr:
            if header.number:
                raise FaultyError
            self._num_idr += 1
            self._order = 0
        elif self._number is not None and header.number != (self._number + 1) % header.modulus:
            raise FaultyError
        order = len(self.orders)
        if half := header.order_modulus // 2:  # the nearest that has these last bits
            order = self._order + (header.order - self._order + half) % header.order_modulus - half
        self.orders.append((self._num_idr, order))
        if header.is_reference:
            self._number, self._order = header.number, order


class _Bits:
    """Reads a header bit by bit.

    Raises:
        FaultyError: At its end, or at a value out of range.
    """

    def __init__(self, data: bytes) -> None:
        data = data[:_HEADER_BYTES].replace(b"\0\0\3", b"\0\0")  # which keeps data from looking like a start code
        self._left = 8 * len(data)
        self._value = int.from_bytes(data, "big")

    def take(self, count: int = 1) -> int:
        self._left -= count
        if self._left < 0:
            raise FaultyError
        value = self._value >> self._left
        self._value ^= value << self._left
        return value

    def number(self, most: int = 2**32) -> int:
        """An unsigned Exp-Golomb code."""
        number = self.take(2 * (self._left - self._value.bit_length()) + 1) - 1
        if number > most:
            raise FaultyError
        return number

    def signed(self, most: int = 2**31) -> int:
        """A signed Exp-Golomb code."""
        number = self.number(2 * most)
        return (number + 1) // 2 if number % 2 else -number // 2


def split_units(packet: bytes, length_size: int) -> Iterator[bytes]:
    """The units of a packet of H.264 or HEVC, after lengths of so many bytes; with 0, after start codes.

    Raises:
        FaultyError: If there are bytes between units, or a unit is longer than the packet.
    """
    return _after_lengths(packet, length_size) if length_size else _after_start_codes(packet)


def _after_lengths(packet: bytes, size: int) -> Iterator[bytes]:
    place = 0
    while place < len(packet):
        start = place + size
        place = start + int.from_bytes(packet[place:start], "big")
        if place > len(packet):
            raise FaultyError
        yield packet[start:place]


def _after_start_codes(data: bytes) -> Iterator[bytes]:
    before, *units = data.split(b"\0\0\1")
    if before.strip(b"\0"):
        raise FaultyError
    yield from (unit.rstrip(b"\0") for unit in units)  # zeros may follow a unit, and begin a start code


def _in_box(box: bytes) -> Iterator[bytes]:
    place = 5
    for mask in (31, 255):  # the number of sequence sets has five bits, that of picture sets eight
        count = box[place] & mask
        place += 1
        for _ in range(count):
            size = int.from_bytes(box[place : place + 2], "big")
            place += 2 + size
            yield box[place - size : place]


def _read_sequence(bits: _Bits) -> tuple[int, _Sequence]:
    profile = bits.take(24) >> 16
    identity = bits.number(31)
    chroma = 1
    if profile in _WITH_CHROMA_FORMAT:
        chroma = bits.number(3)
        if chroma == 3 and bits.take():
            raise FaultyError  # three colour planes, each coded as a picture
        bits.number(6), bits.number(6), bits.take()
        if bits.take():  # scaling lists
            for number in range(12 if chroma == 3 else 8):
                if bits.take():
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    frame_num_bits = bits.number(12) + 4
    order_type = bits.number(2)
    if order_type == 1:
        raise FaultyError  # order told by differences from a cycle
    order_bits = 0 if order_type else bits.number(12) + 4
    bits.number(16), bits.take(), bits.number(), bits.number()
    return identity, _Sequence(bool(chroma), frame_num_bits, order_bits, bool(bits.take()))


def _skip_scaling_list(bits: _Bits, length: int) -> None:
    last = following = 8
    for _ in range(length):
        if following:
            following = (last + bits.signed(128)) % 256
        last = following or last


def _read_picture(bits: _Bits) -> tuple[int, _Picture]:
    identity, sequence = bits.number(255), bits.number(31)
    cabac, has_order = bool(bits.take()), bool(bits.take())
    if bits.number(7):
        raise FaultyError  # slice groups, which only the baseline profile has
    num_references = (bits.number(31) + 1, bits.number(31) + 1)
    weighted, weighted_both = bool(bits.take()), bits.take(2) == 1
    qp = 26 + bits.signed(62)
    bits.signed(26), bits.signed(12)
    has_deblocking, _, has_redundant = bool(bits.take()), bits.take(), bool(bits.take())
    return identity, _Picture(
        sequence, cabac, has_order, num_references, weighted, weighted_both, qp, has_deblocking, has_redundant
    )


def _read_slice(unit: bytes, sequences: dict[int, _Sequence], pictures: dict[int, _Picture]) -> tuple[bool, _Header]:
    """Reads a header to its end, where a decoder could find fault with it and drop the picture."""
    bits = _Bits(unit[1:])
    is_idr, is_reference = unit[0] & 31 == _IDR, bool(unit[0] & 0x60)
    is_first, kind = not bits.number(), bits.number(9) % 5
    if kind > _I or (is_idr and kind != _I):
        raise FaultyError  # the extended profile, or an IDR picture with references
    picture = pictures[bits.number(255)]
    sequence = sequences[picture.sequence]
    number = bits.take(sequence.frame_num_bits)
    field = 0 if sequence.only_frames or not bits.take() else 1 + bits.take()
    if is_idr:
        bits.number(65535)
    order = bits.take(sequence.order_bits)
    if picture.has_order and not field and sequence.order_bits:
        order += min(0, bits.signed())
    if picture.has_redundant and bits.number(127):
        raise FaultyError
    if kind != _I:
        _skip_references(bits, picture, kind=kind, has_chroma=sequence.has_chroma)
    if is_reference:
        _skip_marking(bits, is_idr=is_idr)
    if picture.cabac and kind != _I:
        bits.number(2)
    if not -36 <= picture.qp + bits.signed() <= 51:
        raise FaultyError
    if picture.has_deblocking and bits.number(2) != 1:
        bits.signed(6), bits.signed(6)
    order_modulus = 1 << sequence.order_bits if sequence.order_bits else 0
    return is_first, _Header(is_idr, is_reference, number, 1 << sequence.frame_num_bits, field, order, order_modulus)


def _skip_references(bits: _Bits, picture: _Picture, *, kind: int, has_chroma: bool) -> None:
    """Skips how many references there are, in which order, and how they are weighted."""
    lists = 2 if kind == _B else 1
    if kind == _B:
        bits.take()
    counts = picture.num_references[:lists]
    if bits.take():
        counts = tuple(bits.number(31) + 1 for _ in range(lists))  # type: ignore[assignment]
    for _ in range(lists):
        if bits.take():
            while bits.number(3) != 3:
                bits.number()
    if picture.weighted_both if kind == _B else picture.weighted:
        bits.number(7)
        if has_chroma:
            bits.number(7)
        for count in counts:
            for _ in range(count):
                for planes in (1, 2) if has_chroma else (1,):
                    if bits.take():
                        for _ in range(2 * planes):
                            bits.signed(128)


def _skip_marking(bits: _Bits, *, is_idr: bool) -> None:
    """Skips what becomes of references from here on."""
    if is_idr:
        bits.take(2)
    elif bits.take():
        while operation := bits.number(6):
            if operation == 5:
                raise FaultyError  # numbers start anew without an IDR picture
            for _ in range(2 if operation == 3 else 1):
                bits.number()
