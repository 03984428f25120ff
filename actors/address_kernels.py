"""Addresses of peers in reports, `ip:port`, in compiled code: read where they stand in the JSON."""

from typing import Any, Final

import numpy as np

from actors.json_kernels import (
    CLOSE_LIST,
    COLON,
    DOT,
    OPEN_LIST,
    QUOTE,
    ZERO,
    Bytes,
    byte_at,
    digits_end,
    njit_inner,
    wide,
)

PORT_MAX: Final = 65_535


@njit_inner
def remote(data: Bytes, at: int, end: int) -> tuple[Any, Any, int]:
    """A string `ip:port`: (hi, lo) of the address, and where it stopped."""
    hi, lo = np.uint64(0), np.uint64(0)
    if byte_at(data, at, end) != QUOTE:
        return hi, lo, -1
    ipv4, stop = _ipv4(data, at + 1, end)
    if stop >= 0 and byte_at(data, stop, end) == COLON:
        return hi, np.uint64(0xFFFF_0000_0000 | ipv4), _after_port(data, stop, end)
    start, colon = at + 1, _last_colon(data, at + 1, end)
    stop = colon
    if byte_at(data, start, end) == OPEN_LIST:
        start, stop = start + 1, colon - 1
        if stop < start or data[stop] != CLOSE_LIST:
            return hi, lo, -1
    hi, lo, good = _ipv6(data, start, stop)
    return hi, lo, _after_port(data, colon, end) if good else -1


@njit_inner
def _after_port(data: Bytes, colon: int, end: int) -> int:
    """Where a string that ends in `:port` ends; -1 if it does not."""
    stop = digits_end(data, colon + 1, end)
    if not 1 <= stop - colon - 1 <= 5 or byte_at(data, stop, end) != QUOTE:
        return -1
    port = 0
    for i in range(colon + 1, stop):
        port = port * 10 + data[i] - ZERO
    return stop + 1 if port <= PORT_MAX else -1


@njit_inner
def _last_colon(data: Bytes, at: int, end: int) -> int:
    """The last colon before the quote; `at` where there is none."""
    colon = at
    while at < end and data[at] != QUOTE:
        if data[at] == COLON:
            colon = at
        at += 1
    return colon


@njit_inner
def _ipv4(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(32 bits, where it stopped); no octet has a leading zero."""
    address = 0
    for part in range(4):
        octet = byte_at(data, at, end) - ZERO
        if octet < 0 or octet > 9:
            return 0, -1
        at += 1
        while octet > 0 and at < end and ZERO <= data[at] <= ZERO + 9:
            octet = octet * 10 + data[at] - ZERO
            if octet > 255:
                return 0, -1
            at += 1
        address = address << 8 | octet
        if part < 3:
            if byte_at(data, at, end) != DOT:
                return 0, -1
            at += 1
    return address, at


@njit_inner
def _ipv6(data: Bytes, at: int, stop: int) -> tuple[Any, Any, bool]:  # noqa: PLR0911 - one for each way to be none
    """(hi, lo, whether it is one) of the literal that fills [at, stop); its last 32 bits may be written as IPv4."""
    hi = lo = np.uint64(0)  # of the groups so far, as if they were the last
    groups, gap = 0, -1  # gap: groups before `::`
    head_hi = head_lo = np.uint64(0)
    if stop - at >= 2 and data[at] == COLON and data[at + 1] == COLON:
        gap = 0
        at += 2
    while at < stop:
        if groups == 8:
            return hi, lo, False
        value, after = _group(data, at, stop)
        width = 1
        if after < stop and data[after] == DOT and groups < 7:
            value, after = _ipv4(data, at, stop)
            width = 2
            if after != stop:
                return hi, lo, False
        if after <= at:
            return hi, lo, False
        for i in range(width):
            hi = hi << np.uint64(16) | lo >> np.uint64(48)
            lo = lo << np.uint64(16) | np.uint64(value >> 16 * (width - 1 - i) & 0xFFFF)
        groups += width
        at = after
        if at == stop:
            break
        if data[at] != COLON or at + 1 == stop:
            return hi, lo, False
        at += 1
        if data[at] == COLON:
            if gap >= 0:
                return hi, lo, False
            gap = groups
            head_hi, head_lo = hi, lo
            hi = lo = np.uint64(0)
            at += 1
    if gap < 0:
        return hi, lo, groups == 8
    for _ in range(8 - gap):
        head_hi = head_hi << np.uint64(16) | head_lo >> np.uint64(48)
        head_lo = head_lo << np.uint64(16)
    return hi | head_hi, lo | head_lo, groups <= 7


@njit_inner
def _group(data: Bytes, at: int, stop: int) -> tuple[int, int]:
    """(value, where it stopped) of up to four hexadecimal digits."""
    value = 0
    most = min(stop, at + 4)
    while at < most:
        c = wide(data[at])
        if ZERO <= c <= ZERO + 9:
            digit = c - ZERO
        elif 97 <= c | 32 <= 102:
            digit = (c | 32) - 87
        else:
            break
        value = value << 4 | digit
        at += 1
    return value, at
