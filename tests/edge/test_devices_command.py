"""`detectd devices`: what it prints, what it writes, and its exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from config.model import Settings
from daemon.__main__ import main
from daemon.devices.credentials import FILE, fingerprint_of, read
from daemon.devices.passwords import CHOSEN, GENERATED, is_right

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def write(folder: Path, **embedded: object) -> None:
    (folder / "detectd.yaml").write_text(json.dumps({"data_dir": "data", "broker": {"embedded": embedded}}))


def secret(folder: Path, text: str) -> str:
    path = folder / "password"
    path.touch(mode=0o600)
    path.write_text(text)
    return str(path)


def detectd(folder: Path, *words: str) -> int:
    return main(["devices", *words, "--config", str(folder / "detectd.yaml")])


def device(folder: Path, name: str = "t1"):
    return read(folder / "data" / FILE).devices[name]


def opens(folder: Path, password: str, name: str = "t1") -> bool:
    return is_right(password.encode(), read(folder / "data" / FILE).hashes[name])


def certificate(name: str = "t1") -> trustme.LeafCert:
    return trustme.CA().issue_cert(common_name=name)


def test_a_generated_password_is_printed_once_and_opens(folder, capsys):
    assert detectd(folder, "add", "t1", "--generate") == 0
    printed = capsys.readouterr()
    (line,) = printed.out.splitlines()
    assert opens(folder, line)
    assert printed.err == ""
    assert line not in (folder / "data" / FILE).read_text()
    assert read(folder / "data" / FILE).costs == (GENERATED,)


def test_a_password_comes_from_a_file_and_is_printed_nowhere(folder, capsys):
    assert detectd(folder, "add", "t1", "--password-file", secret(folder, " open sesame\n")) == 0
    assert opens(folder, "open sesame")
    assert read(folder / "data" / FILE).costs == (CHOSEN,)
    assert capsys.readouterr() == ("", "")


def test_a_certificate_is_known_by_its_fingerprint_pem_or_der(folder):
    shown = certificate()
    pem = folder / "chain.pem"
    pem.write_bytes(shown.cert_chain_pems[0].bytes() + certificate("ca").cert_chain_pems[0].bytes())
    der = folder / "t2.der"
    der.write_bytes(_der(certificate("t2")))
    assert detectd(folder, "add", "t1", "--certificate", str(pem)) == 0
    assert detectd(folder, "add", "t2", "--certificate", str(der)) == 0
    assert device(folder).fingerprints == (fingerprint_of(_der(shown)),)
    assert device(folder, "t2").fingerprints == (fingerprint_of(der.read_bytes()),)


def _der(shown: trustme.LeafCert) -> bytes:
    return x509.load_pem_x509_certificate(shown.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)


def test_a_fingerprint_is_taken_as_openssl_prints_it(folder):
    assert detectd(folder, "add", "t1", "--fingerprint", ":".join(["AB"] * 32)) == 0
    assert device(folder).fingerprints == ("ab" * 32,)


def test_a_second_password_takes_the_place_of_the_first_and_a_second_certificate_is_one_more(folder, capsys):
    detectd(folder, "add", "t1", "--generate")
    detectd(folder, "add", "t1", "--generate", "--fingerprint", "ab" * 32)
    detectd(folder, "add", "t1", "--fingerprint", "cd" * 32)
    detectd(folder, "add", "t1", "--fingerprint", "cd" * 32)
    first, second = capsys.readouterr().out.split()
    assert not opens(folder, first)
    assert opens(folder, second)
    assert device(folder).fingerprints == ("ab" * 32, "cd" * 32)


def test_who_was_revoked_and_is_added_again_begins_afresh(folder):
    detectd(folder, "add", "t1", "--generate", "--fingerprint", "ab" * 32)
    assert detectd(folder, "revoke", "t1") == 0
    assert (device(folder).revoked, device(folder).password, device(folder).fingerprints) == (True, None, ())
    detectd(folder, "add", "t1", "--fingerprint", "cd" * 32)
    assert (device(folder).revoked, device(folder).password, device(folder).fingerprints) == (False, None, ("cd" * 32,))


def test_the_list_says_who_may_come_in_and_by_what(folder, capsys):
    detectd(folder, "add", "t2", "--generate", "--fingerprint", "ab" * 32)
    detectd(folder, "add", "t1", "--fingerprint", "cd" * 32)
    detectd(folder, "add", "t3", "--generate")
    detectd(folder, "revoke", "t3")
    capsys.readouterr()
    assert detectd(folder, "list") == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["t1", "certificate"], ["t2", "password, certificate"], ["t3", "revoked"]]
    assert detectd(folder, "list", "--json") == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["name"], row["revoked"], row["password"]) for row in shown] == [
        ("t1", False, False),
        ("t2", False, True),
        ("t3", True, False),
    ]
    assert "scrypt" not in str(shown)


def test_without_devices_the_list_is_empty_and_writes_nothing(folder, capsys):
    assert detectd(folder, "list") == 0
    assert capsys.readouterr().out == ""
    assert not (folder / "data").exists()


def test_revoking_a_device_that_is_not_there_is_a_no(folder, capsys):
    assert detectd(folder, "revoke", "t1") == 1
    assert "no device 't1'" in capsys.readouterr().err


def test_with_a_ca_any_name_can_be_revoked(folder):
    ca, shown = trustme.CA(), certificate()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    shown.cert_chain_pems[0].write_to_path(folder / "c.pem")
    shown.private_key_pem.write_to_path(folder / "k.pem")
    write(folder, tls={"cert": "c.pem", "key": "k.pem", "ca": "ca.pem"})
    assert detectd(folder, "revoke", "t1") == 0
    assert device(folder).revoked


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["add", "t1"], "give --generate"),
        (["add", "a/b", "--generate"], "none of + # / ?"),
        (["add", "+", "--generate"], "none of + # / ?"),
        (["add", " t1", "--generate"], "printable"),
        (["add", "x" * 129, "--generate"], "1 to 128"),
        (["add", "t1", "--fingerprint", "ab" * 20], "SHA-256"),
        (["add", "t1", "--certificate", "none.pem"], "none.pem"),
        (["add", "t1", "--certificate", __file__], "no certificate"),
        (["add", "t1", "--password-file", "none"], "no such secret file"),
        (["revoke", "#"], "none of + # / ?"),
    ],
)
def test_wrong_use_is_said_and_changes_nothing(folder, capsys, words, why):
    assert detectd(folder, *words) == 2
    printed = capsys.readouterr()
    assert why in printed.err
    assert printed.out == ""
    assert not (folder / "data" / FILE).exists()


def test_the_certificate_of_another_device_is_refused(folder, capsys):
    detectd(folder, "add", "t1", "--fingerprint", "ab" * 32)
    assert detectd(folder, "add", "t2", "--fingerprint", "ab" * 32) == 2
    assert "the certificate of 't1'" in capsys.readouterr().err


def test_no_password_is_printed_that_was_not_stored(folder, capsys):
    (folder / "data").mkdir()
    (folder / "data" / FILE).write_text("{")
    assert detectd(folder, "add", "t1", "--generate") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(folder / "data" / FILE) in printed.err
    assert detectd(folder, "list") == 2


def test_a_password_that_can_not_be_shown_takes_the_place_of_none(folder):
    assert detectd(folder, "add", "t1", "--generate") == 0
    before = read(folder / "data" / FILE).devices
    for name in ("t1", "t2"):
        command = [sys.executable, "-m", "daemon", "devices", "add", name, "--generate", "--config"]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*command, folder / "detectd.yaml"], cwd=ROOT, stdout=full, check=False)
        assert done.returncode == 3
    assert read(folder / "data" / FILE).devices == before


def test_a_data_directory_out_of_reach_is_3(folder):
    (folder / "detectd.yaml").write_text(json.dumps({"data_dir": "/proc/nowhere"}))
    assert detectd(folder, "add", "t1", "--generate") == 3


def test_a_configuration_that_is_bad_is_1_and_one_that_is_missing_2(folder):
    (folder / "detectd.yaml").write_text("nonsense: 1")
    assert detectd(folder, "list") == 1
    (folder / "detectd.yaml").unlink()
    assert detectd(folder, "list") == 2


def test_where_nothing_asks_for_credentials_that_is_said(folder, capsys):
    write(folder, sensor=False)
    assert detectd(folder, "add", "t1", "--fingerprint", "ab" * 32) == 0
    assert "nothing asks for it" in capsys.readouterr().err


def test_the_data_directory_is_the_configurations(folder):
    detectd(folder, "add", "t1", "--fingerprint", "ab" * 32)
    assert (folder / Settings().data_dir / FILE).exists()
