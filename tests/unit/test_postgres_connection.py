"""How connections are made safe: TLS, password files, redaction, pinned settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cdcrep.errors import ConfigError
from cdcrep_connectors.postgres.connection import (
    connection_parameters,
    connection_string,
    describe,
    parse,
    read_password,
    redact,
)
from cdcrep_connectors.postgres.options import ServerOptions

SECRET = "p%w'd@:/?x"
ENCODED = "p%25w%27d%40%3A%2F%3Fx"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)


def parameters(url: str, **options: object) -> dict[str, str]:
    return connection_parameters(ServerOptions.model_validate({"url": url, **options}), "cdcrep test", {})


def test_another_machine_is_verified_by_default() -> None:
    assert parameters("postgresql://u@db.example.com/shop")["sslmode"] == "verify-full"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9", "%2Frun%2Fpostgresql", ""])
def test_this_machine_may_be_spoken_to_in_plain_text(host: str) -> None:
    assert parameters(f"postgresql://u@{host}/shop")["sslmode"] == "prefer"


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca"])
def test_weaker_protection_of_another_machine_is_refused(mode: str) -> None:
    with pytest.raises(ConfigError, match=f"sslmode={mode}") as refusal:
        parameters(f"postgresql://u@db.example.com/shop?sslmode={mode}")

    assert "insecure = true" in str(refusal.value.hint)


def test_one_distant_host_of_several_makes_verification_necessary() -> None:
    assert parameters("postgresql://u@127.0.0.1,db.example.com/shop")["sslmode"] == "verify-full"


def test_a_local_name_with_a_distant_address_is_distant() -> None:
    assert parameters("postgresql://u@localhost/shop?hostaddr=192.0.2.1")["sslmode"] == "verify-full"


def test_an_old_tls_version_is_refused() -> None:
    with pytest.raises(ConfigError, match="ssl_min_protocol_version"):
        parameters("postgresql://u@db.example.com/shop?ssl_min_protocol_version=TLSv1")


def test_insecure_connections_never_send_the_password_itself() -> None:
    found = parameters("postgresql://u@db.example.com/shop", insecure=True)

    assert found["sslmode"] == "prefer"
    assert found["require_auth"] == "!password"


def test_the_given_certificate_authority_is_used() -> None:
    assert parameters("postgresql://u@h.example/shop?sslrootcert=/etc/ca.crt")["sslrootcert"] == "/etc/ca.crt"


def test_own_session_settings_come_after_those_of_the_url() -> None:
    options = parameters("postgresql://u@127.0.0.1/shop?options=-c%20DateStyle%3DSQL")["options"]

    assert options.index("DateStyle=SQL") < options.index("DateStyle=ISO")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{ENCODED}@h.example/shop",
        f"postgresql://u:{SECRET}@h.example/shop",
        f"postgresql://u@h.example/shop?password={ENCODED}",
        f"postgresql://u@h.example/shop?connect_timeout=3&pass%77ord={ENCODED}&sslpassword={ENCODED}",
    ],
)
def test_no_password_survives_redaction(url: str) -> None:
    shown = redact(url)

    assert SECRET not in shown
    assert ENCODED not in shown
    assert "***" in shown
    assert "h.example" in shown


def test_a_url_without_a_password_is_shown_as_it_is() -> None:
    assert redact("postgresql://u@h:5432/d?sslmode=require") == "postgresql://u@h:5432/d?sslmode=require"


def test_an_unreadable_url_is_refused_without_being_repeated() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse("postgresql://u:canary%zz@h/d")

    assert "canary" not in f"{refusal.value}{refusal.value.hint}{refusal.value.__cause__}"
    assert refusal.value.__suppress_context__


def test_options_do_not_show_the_url() -> None:
    options = ServerOptions(url="postgresql://u:canary@h/d")

    assert "canary" not in f"{options!r}{options}"
    assert "canary" not in describe(options)


def test_a_password_file_is_read_by_every_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    file.chmod(0o600)
    options = ServerOptions(url="postgresql://u@127.0.0.1/d", password_file=file)
    before = connection_string(options, "cdcrep")

    file.write_text("second word\n")

    assert "password=first" in before
    assert "password='second word'" in connection_string(options, "cdcrep")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o700])
def test_a_password_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "password"
    file.write_text("canary")
    file.chmod(mode)

    with pytest.raises(ConfigError, match="open to others") as refusal:
        read_password(file)

    assert refusal.value.hint == f"chmod 0600 {file}"


def test_a_symbolic_link_is_no_password_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("canary")
    file.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(file)

    with pytest.raises(ConfigError, match="cannot be opened"):
        read_password(link)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_password_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("canary")
    file.chmod(0o600)
    os.chown(file, 65534, 65534)

    with pytest.raises(ConfigError, match="belongs to somebody else"):
        read_password(file)


def test_two_passwords_are_one_too_many(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("x")
    file.chmod(0o600)

    with pytest.raises(ConfigError, match="both"):
        parameters("postgresql://u:y@127.0.0.1/d", password_file=file)
