"""What is kept of a password."""

import pytest

from daemon.devices import passwords
from daemon.devices.passwords import CHOSEN, GENERATED, Cost, Hash, decoy, generated, hashed, is_right, parsed

QUICK = Cost(4)


def test_the_right_password_is_right_and_no_other():
    kept = hashed(b"open sesame", QUICK)
    assert is_right(b"open sesame", kept)
    assert not is_right(b"open sesam", kept)
    assert not is_right(b"", kept)


def test_equal_passwords_are_kept_differently():
    assert hashed(b"a", QUICK).text != hashed(b"a", QUICK).text


@pytest.mark.parametrize("cost", [QUICK, Cost(5, 4, 2), GENERATED, CHOSEN])
def test_what_is_written_is_read_again_and_still_opens(cost):
    kept = hashed(b"\xff\0\xe4", cost)
    again = parsed(kept.text)
    assert again == kept
    assert is_right(b"\xff\0\xe4", again)


def test_a_hash_shows_neither_salt_nor_digest():
    kept = hashed(b"x", QUICK)
    assert repr(kept) == f"Hash(cost={QUICK!r})"
    assert "Hash(" not in kept.text


def test_nothing_opens_a_decoy():
    assert not is_right(b"", decoy(QUICK))
    assert decoy(QUICK).cost == QUICK


GOOD = hashed(b"x", QUICK).text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        GOOD + "A",
        GOOD.replace("ln=4", "ln=04"),  # two spellings of one hash: what was shown could not be found again
        GOOD.replace("ln=4", "ln=0"),
        GOOD.replace("ln=4", "ln=30"),  # 1 TiB
        GOOD.replace("r=8", "r=0"),
        GOOD.replace("r=8", "r=99").replace("ln=4", "ln=13"),
        GOOD.replace("p=1", "p=9"),
        GOOD.replace("p=1", "p=0"),
        GOOD.replace("scrypt", "argon2id"),
        GOOD[:-4],
        Hash(QUICK, b"salt", b"short").text,
        GOOD + "\n",
    ],
)
def test_what_is_no_hash_of_ours_is_refused_and_not_shown(text):
    with pytest.raises(ValueError) as refused:
        parsed(text)
    assert not text or text not in str(refused.value)


def test_a_check_never_takes_more_memory_than_it_may():
    assert Cost(16).memory_bytes == passwords.MEMORY_BYTES_MAX
    kept = Hash(Cost(16), b"s" * 16, b"d" * 32)
    assert parsed(kept.text) == kept
    assert not is_right(b"x", kept)  # OpenSSL lets it
    with pytest.raises(ValueError, match="out of bounds"):
        parsed(Hash(Cost(17), b"s" * 16, b"d" * 32).text)


def test_generated_passwords_differ_and_fit_into_a_line():
    made = {generated() for _ in range(50)}
    assert len(made) == 50
    assert all(len(one) == 27 and one.isascii() and one.isprintable() for one in made)
