"""The thing that an MQTT client is."""

import pytest

from config.clients import thing_of
from config.model import Client

CLIENTS = (
    Client(pattern=r"plant-(\d+)-(?:a|b)", thing=r"p\1"),
    Client(pattern=r"plant-.*", thing="plants"),
    Client(pattern=r"(x)?y", thing=r"y\1"),
)


@pytest.mark.parametrize(
    ("client_id", "thing"),
    [
        ("plant-7-a", "p7"),
        ("plant-7-c", "plants"),  # the second, as the first asks for a or b
        ("my-plant-7-a", "my-plant-7-a"),  # whole, not a part
        ("plant-7-a\n", "plant-7-a\n"),  # `.` and `$` would let a line's end pass
        ("xy", "yx"),
        ("y", "y"),  # a group that took no part is empty
        ("", ""),
    ],
)
def test_the_first_pattern_that_matches_the_whole_id_names_the_thing(client_id, thing):
    assert thing_of(client_id, CLIENTS) == thing


def test_without_patterns_a_client_is_the_thing_of_its_id():
    assert thing_of("t1", ()) == "t1"
