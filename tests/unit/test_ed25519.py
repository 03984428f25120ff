"""Signatures, against the standard's own vectors and a library."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from daemon.ed25519 import SigningKey

# RFC 8032, section 7.1: seed, public key, message, signature.
VECTORS = (
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
)


def test_the_vectors_of_rfc_8032_come_out() -> None:
    for seed, public, message, signature in VECTORS:
        key = SigningKey(bytes.fromhex(seed))
        assert (key.public.hex(), key.sign(bytes.fromhex(message)).hex()) == (public, signature)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_a_library_makes_the_same_signature(seed: bytes, message: bytes) -> None:
    assert SigningKey(seed).sign(message) == Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def test_the_seed_does_not_show() -> None:
    assert "61" not in repr(SigningKey(b"a" * 32))
    assert "aaa" not in repr(SigningKey(b"a" * 32))
