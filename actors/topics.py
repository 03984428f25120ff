"""How an MQTT topic is spelled as a NATS subject, and back (design.md §2; as nats-server's MQTT gateway does it).

Level by level: a `/` between levels is a `.`, a `.` inside a level is `//`, and an empty level is a lone `/`.
"""


def subject_of_topic(topic: str) -> str:
    """`$aws/things/p.1/x` -> `$aws.things.p//1.x`. Wildcards are not looked at: a topic that is published has none."""
    return ".".join(level.replace(".", "//") or "/" for level in topic.split("/"))


def topic_of_subject(subject: str) -> str:
    """The inverse of `subject_of_topic`."""
    return "/".join("" if level == "/" else level.replace("//", ".") for level in subject.split("."))
