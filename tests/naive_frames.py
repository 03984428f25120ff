"""The slow, obvious twin of `daemon.log.frames.split`: whole bytes in, a list of what they say out.

Written from the description of the NATS client protocol and of JetStream's reply subjects, with `bytes` methods.
"""

from actors.entries import classify
from actors.messages import BACKLOG, COPIED
from daemon.log.frames import INBOX_SID, LOG_SID, STRANGE_SID


class Malformed(Exception):
    pass


def read(data: bytes, seq: int, cseq: int, timed: bool = False) -> list[tuple]:
    """What the bytes say, in order, up to the first incomplete frame; it may end malformed or broken.

    ("entry", seq, ts, origin, kind, flags, subject, token, payload) · ("line", text) · ("status"|"message", sid, body)
    · ("stored", number, seq, doubled) · ("skipped", first, last) · ("broken", seq, expected)
    """
    said: list[tuple] = []
    try:
        while data:
            line, found, rest = data.partition(b"\r\n")
            if not found:
                return said
            fields = line.split(b" ")
            if fields[0] not in (b"MSG", b"HMSG") or len(fields) < 2:
                if line[:3] not in (b"INF", b"PIN", b"PON", b"+OK", b"-ER"):
                    raise Malformed
                said.append(("line", line))
                data = rest
                continue
            subject, sid, reply, headers_len, size = message_line(fields)
            if len(rest) < size + 2:
                if len(rest) > size and rest[size : size + 1] != b"\r" and len(rest) >= size + 2:
                    raise Malformed
                return said
            if rest[size : size + 2] != b"\r\n":
                raise Malformed
            headers, body, data = rest[:headers_len], rest[headers_len:size], rest[size + 2 :]
            place = position(reply) if sid == LOG_SID and reply is not None else None
            if place is not None:
                at, count, ts = place
                if count != cseq or at < seq:
                    said.append(("broken", at, seq))
                    return said
                if at != seq:
                    said.append(("skipped", seq, at - 1))
                seq, cseq = at + 1, cseq + 1
                said.append(entry(at, ts, subject, headers, body, timed))
            elif sid in (LOG_SID, INBOX_SID) or sid >= STRANGE_SID:
                said.append(other(subject, sid, headers, body))
    except Malformed:
        said.append(("malformed",))
    return said


def message_line(fields):
    bare = 4 if fields[0] == b"MSG" else 5
    if len(fields) not in (bare, bare + 1):
        raise Malformed
    numbers = [number(fields[2]), number(fields[-1])] + ([number(fields[-2])] if bare == 5 else [0])
    if None in numbers:
        raise Malformed
    sid, size, headers_len = numbers
    if headers_len > size or size > 2**30:
        raise Malformed
    return fields[1], sid, fields[3] if len(fields) > bare else None, headers_len, size


def number(text: bytes):
    if not text.isdigit() or len(text) > 19 or int(text) >= 2**63:
        return None
    return int(text)


def position(reply: bytes):
    tokens = reply.split(b".")
    if tokens[:2] != [b"$JS", b"ACK"] or len(tokens) not in (9, 11, 12):
        return None
    start = 5 if len(tokens) == 9 else 7
    found = [number(token) for token in tokens[start : start + 3]]
    return None if None in found else found


def entry(seq, ts, subject, headers, body, timed):
    kind, flags, off, length = classify(subject)
    own = None
    for line in headers.split(b"\r\n"):
        if line.startswith(b"Detectd-Time:"):
            own = number(line.removeprefix(b"Detectd-Time:").lstrip(b" "))
    ts = own if timed and own is not None else ts
    origin = ts
    for line in headers.split(b"\r\n"):
        if line.startswith(b"Detectd-First-Time:"):
            first = number(line.removeprefix(b"Detectd-First-Time:").lstrip(b" "))
            origin = ts if first is None else first
            flags = flags & ~COPIED | (COPIED if first is not None else 0)
        elif line == b"Detectd-Backlog: 1":
            flags |= BACKLOG
    return ("entry", seq, ts, origin, kind, flags, subject, subject[off : off + length], body)


def other(subject, sid, headers, body):
    if headers.startswith(b"NATS/1.0 "):
        return ("status", sid, body)
    tail = number(subject.rpartition(b".")[2])
    if sid == INBOX_SID and tail is not None and not headers and body.startswith(b'{"stream":"'):
        _, found, rest = body.removeprefix(b'{"stream":"').partition(b'"')[2].partition(b'"seq":')
        digits = rest.lstrip(b" ")
        digits = digits[: len(digits) - len(digits.lstrip(b"0123456789"))]
        seq = number(digits) if found else None
        if seq:
            return ("stored", tail, seq, b'"duplicate":true' in body)
    return ("message", sid, body)
