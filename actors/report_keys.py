"""The keys of reports (spec.md §2), long and short, and how compiled code knows one where it stands in the JSON.

A key is compared eight bytes at a time, with its closing quote.
"""

from typing import Any, Final

import numpy as np

from actors.json_kernels import QUOTE, Bytes, byte_at, colon, njit_inner, word_at
from actors.messages import I8, U8

_KEYS: Final = (
    (("header", "hed"), ("metrics", "met"), ("custom_metrics", "cmet")),
    (("report_id", "rid"), ("version", "v")),
    (("listening_tcp_ports", "tp"), ("listening_udp_ports", "up"), ("tcp_connections", "tc"), ("network_stats", "ns")),
    (("bytes_in", "bi"), ("bytes_out", "bo"), ("packets_in", "pi"), ("packets_out", "po")),
    (("ports", "pts"), ("total", "t")),
    (("port", "pt"), ("interface", "if")),
    (("established_connections", "ec"),),
    (("connections", "cs"), ("total", "t")),
    (("remote_addr", "rad"), ("local_port", "lp"), ("local_interface", "li")),
    (("number",),),
)
# The objects, by their place in _KEYS. Keys of an object are numbered as they stand there.
# Not plain ints: the compiler would make a `key_at` for each of these.
ROOT, HEADER, METRICS, COUNTERS, LISTENING, PORT, TCP, ESTABLISHED, CONNECTION, CUSTOM = map(np.int64, range(10))

_WORDS_MAX: Final = 3  # of 8 bytes, for the longest key with its closing quote


def _key_tables() -> tuple[U8, U8, I8, I8]:
    """(words, masks [spelling, _WORDS_MAX], (bytes, key) [spelling, 2], first spelling [object + 1])."""
    words, masks, meanings, firsts = [], [], [], [0]
    for keys in _KEYS:
        for number, spellings in enumerate(keys):
            for spelling in spellings:
                text = spelling.encode() + b'"'
                words.append(np.frombuffer(text.ljust(8 * _WORDS_MAX, b"\0"), "<u8"))
                masks.append(np.frombuffer((b"\xff" * len(text)).ljust(8 * _WORDS_MAX, b"\0"), "<u8"))
                meanings.append((len(text), number))
        firsts.append(len(words))
    return np.array(words, np.uint64), np.array(masks, np.uint64), np.array(meanings), np.array(firsts)


_WORDS, _MASKS, _MEANINGS, _FIRSTS = _key_tables()


@njit_inner
def key_at(data: Bytes, at: int, end: int, which: Any) -> tuple[int, int]:
    """(number of the key of object `which`, where its value begins); (-1, -1) where it is none."""
    if byte_at(data, at, end) != QUOTE:
        return -1, -1
    at += 1
    head = word_at(data, at, end)
    for i in range(_FIRSTS[which], _FIRSTS[which + 1]):
        if head & _MASKS[i, 0] == _WORDS[i, 0]:
            size = _MEANINGS[i, 0]
            if size > 8 and word_at(data, at + 8, end) & _MASKS[i, 1] != _WORDS[i, 1]:
                continue
            if size > 16 and word_at(data, at + 16, end) & _MASKS[i, 2] != _WORDS[i, 2]:
                continue
            value = colon(data, at + size, end)
            return (_MEANINGS[i, 1], value) if value >= 0 else (-1, -1)
    return -1, -1
