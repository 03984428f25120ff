"""What other parts of the daemon count by themselves, by the names that they count under: the words for it.

`daemon.telemetry.Telemetry` reads these numbers when it is scraped.
"""

from typing import Final

BRIDGE_TOTALS: Final = {
    "received": "Messages received from the other broker.",
    "stored": "Of these, reports that the log has stored.",
    "retained": "Retained messages ignored: old news, not a report of now.",
    "oversize": "Messages longer than the limit: cut; of reports the core rejects what is left.",
    "misnamed": "Messages whose topic names no possible thing, ignored.",
    "repeated": "Messages delivered again after a reconnect that the log already had.",
    "pauses": "Times the broker was made to wait because too much waited to be stored.",
    "reconnects": "Connections made after the first.",
    "replies_sent": "Replies handed to the other broker.",
    "replies_dropped": "Replies dropped: the broker was away or slow, or takes none.",
    "exports_sent": "Messages of exported metrics handed to the other broker.",
    "exports_dropped": "Messages of exported metrics dropped: the broker was away or slow.",
    "events": "Events stored: what its clients did, equal ones summed.",
    "redelivered": "Messages about clients that came a second time after a crash, and may count twice.",
    "unreadable": "Messages about clients that made no sense.",
}

SOURCE_TOTALS: Final = {
    "lines": "Lines read from a log file.",
    "heard": "Messages of the cluster's system account about clients.",
    "unreadable": "Lines or messages that made no sense.",
    "ambiguous": "Lines that can be read in two ways, because of a client's strange id: they count for nobody.",
    "cut": "Lines that the broker cut short: a message has no size, or the client no name.",
    "nameless": "Connections that ended before the log knew the client's name: logins that failed, mostly.",
    "forgotten": "Connected clients that were forgotten for want of room.",
    "shed": "Messages dropped because the log was out of reach for too long.",
    "lost": "Times that a log file, or the place in it, was gone before its end was read.",
    "rewritten": "Times that a log file was truncated.",
    "skipped_bytes": "Bytes passed over because too much waited to be read.",
    "stored": "Entries that the log has stored.",
    "repeated": "Attempts to store that failed, and were made again.",
    "refused": "Entries that the log will never take, dropped.",
    "unnoted": "Times that the place in a log file could not be written down.",
    "reconnects": "Connections made after the first.",
}

DEVICE_GAUGES: Final = {
    "devices_listed": "Devices that the file of credentials names, revoked ones too.",
    "devices_file_damaged": "1 while the file of credentials can't be used: what it said before is in force.",
    "logins_waiting": "Passwords that wait for their check.",
}
DEVICE_TOTALS: Final = {
    "logins_forgotten": "Good logins that must be checked anew, for want of room to remember them.",
    "logins_failures_evicted": "Addresses whose failed logins were forgotten for want of room.",
}

SENSOR_TOTALS: Final = {
    "accepted": "TCP connections that clients made.",
    "connected": "Clients that the broker took.",
    "connect_failed": "Attempts to connect that came to nothing, of those that said who they are.",
    "disconnected": "Connections that ended.",
    "left": "Of these, those that the client ended as it should, by DISCONNECT.",
    "published": "Messages that clients published.",
    "reports": "Of these, reports that went into the log at once, and were acknowledged when it had them.",
    "report_waits": "Times a client waited because the log had not taken the reports of before.",
    "delivered": "Messages that the broker delivered to clients.",
    "denied": "Publishes, subscriptions and logins that were refused.",
    "refused": "Clients that were not let in.",
    "revoked": "Clients that were put out: what they may is not what it was.",
    "silent": "Connections closed because no CONNECT came in time.",
    "lapsed": "Connections closed because nothing came for one and a half times their keep-alive.",
    "malformed": "Connections closed because of bytes that are no MQTT.",
    "oversize": "Connections closed because of a header that is too long, or no room to keep it.",
    "crowded": "Connections closed because there were too many.",
    "handshakes_failed": "Connections that did not get through TLS.",
    "unreachable": "Clients turned away because the broker was not there.",
    "unnamed": "Clients connected without an id, or one that is too long: of them there are no events.",
    "pauses": "Times a client waited because there was no room for what is noted of it.",
    "stored": "Broker events that the log has stored.",
    "dropped": "Facts not noted: the log was away for too long.",
}

EXPORT_TOTALS: Final = {
    "datapoints": "Datapoints of exported metrics handed to a broker.",
    "messages": "Messages that held them.",
    "passed_over": "Reports, events and windows' values not exported: too many waited.",
    "dropped": "Datapoints dropped: too many were held for the next batch.",
    "oversize": "Datapoints dropped that no message can hold.",
    "unsent": "Datapoints dropped because their broker was away, or did not take them.",
    "failed": "Batches dropped because of a bug; the log has it.",
}

HISTORY_TOTALS: Final = {
    "rows": "Reports whose metric values were kept.",
    "refused": "Reports not kept, of things beyond limits.things_max.",
    "turned_away": "Values of windows for which the queue had no room.",
    "waits": "Times that reading waited for room in the history's queue.",
    "behind": "Times that the disk could not follow, and the log was read again.",
    "lost": "Entries that the log had dropped before they were read again.",
    "holes": "Starts behind the history's position: what lies between is missing.",
    "expired": "Pieces of history that became too old.",
    "dropped": "Pieces of history that went early, to keep to its most bytes.",
    "started_afresh": "Damaged history files that were set aside.",
}
