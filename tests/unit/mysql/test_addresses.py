"""How connections are made safe: what a URL says, TLS, plain text."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from cdcrep.errors import ConfigError
from cdcrep_connectors.mysql.address import encryption, parse, tls_context
from cdcrep_connectors.mysql.connection import describe
from cdcrep_connectors.mysql.options import ServerOptions, SourceOptions

SECRET = "p%w'd@:/?x"
ENCODED = "p%25w%27d%40%3A%2F%3Fx"


def mode(url: str, **options: object) -> str:
    return encryption(ServerOptions.model_validate({"url": url, **options}), parse(url))


def test_a_url_is_taken_apart() -> None:
    address = parse(f"mysql://cdc%40x:{ENCODED}@db.example.com:3307/my%20shop?ssl-ca=/etc/ca.pem")

    assert (address.host, address.port, address.user) == ("db.example.com", 3307, "cdc@x")
    assert (address.password, address.database) == (SECRET, "my shop")
    assert address.parameters == {"ssl-ca": "/etc/ca.pem"}


def test_a_url_may_leave_out_port_password_and_database() -> None:
    address = parse("mariadb://cdc@[::1]")

    assert (address.host, address.port, address.password, address.database) == ("::1", 3306, None, None)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/shop",
        "mysql://u@/shop",
        "mysql://u@h:port/shop",
        "mysql://u@h/a/b",
        "mysql://u@h/d#x",
        "mysql://u:canary@h:99999/d",
        "mysql://u@h/d?canary",
        "mysql://u@h/d?charset=latin1",
    ],
)
def test_an_unreadable_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(url)

    assert refusal.value.hint
    assert "canary" not in f"{refusal.value}{refusal.value.hint}{refusal.value.__cause__}"


def test_another_scheme_is_refused() -> None:
    with pytest.raises(ValidationError, match="mysql://"):
        ServerOptions(url="postgresql://u@h/d")


def test_options_and_descriptions_do_not_show_the_password() -> None:
    options = SourceOptions(url="mysql://u:canary@h/d")

    assert "canary" not in f"{options!r}{options}{describe(options)}{parse(options.url)!r}"
    assert describe(options) == "database d on h:3306 as u"


def test_another_machine_is_verified_by_default() -> None:
    assert mode("mysql://u@db.example.com/shop") == "VERIFY_IDENTITY"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9"])
def test_this_machine_may_be_spoken_to_in_plain_text(host: str) -> None:
    assert mode(f"mysql://u@{host}/shop") == "DISABLED"
    assert mode(f"mysql://u@{host}/shop?ssl-mode=required") == "REQUIRED"
    assert mode(f"mysql://u@{host}/shop?ssl-ca=/ca.pem") == "VERIFY_IDENTITY"


def test_a_unix_socket_needs_no_encryption() -> None:
    assert mode("mysql://u@localhost/shop?socket=/run/mysqld/mysqld.sock") == "DISABLED"


@pytest.mark.parametrize("given", ["disabled", "preferred", "REQUIRED", "verify-ca"])
def test_weaker_protection_of_another_machine_is_refused(given: str) -> None:
    url = f"mysql://u@db.example.com/shop?ssl-mode={given}"

    with pytest.raises(ConfigError, match="does not protect") as refusal:
        mode(url)

    assert "insecure = true" in str(refusal.value.hint)
    assert mode(url, insecure=True) == given.upper().replace("-", "_")


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="ssl-mode"):
        mode("mysql://u@127.0.0.1/shop?ssl-mode=maybe")


def test_insecure_connections_use_tls_where_the_server_offers_it() -> None:
    assert mode("mysql://u@db.example.com/shop", insecure=True) == "PREFERRED"


@pytest.mark.parametrize(
    ("given", "certificate", "host_name"),
    [
        ("VERIFY_IDENTITY", ssl.CERT_REQUIRED, True),
        ("VERIFY_CA", ssl.CERT_REQUIRED, False),
        ("REQUIRED", ssl.CERT_NONE, False),
    ],
)
def test_a_mode_decides_what_is_verified(given: str, certificate: ssl.VerifyMode, host_name: bool) -> None:
    context = tls_context(given, parse("mysql://u@h/d"))

    assert context.verify_mode == certificate
    assert context.check_hostname == host_name
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_certificate_file_that_cannot_be_used_is_named_as_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="certificate"):
        tls_context("VERIFY_CA", parse(f"mysql://u@h/d?ssl-ca={tmp_path / 'missing.pem'}"))


@pytest.mark.parametrize("number", [0, 2**32])
def test_a_server_id_has_32_bits_and_is_not_zero(number: int) -> None:
    with pytest.raises(ValidationError):
        SourceOptions(url="mysql://u@h/d", server_id=number)
