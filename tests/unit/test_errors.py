"""Errors say what to type, and each kind ends the program with its own status."""

from __future__ import annotations

import pytest

from cdcrep.errors import CdcrepError, ConfigError, DataError, DivergedError, SetupError, TransientError

KINDS = [ConfigError, SetupError, TransientError, DataError, DivergedError]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_carries_its_message_and_hint(kind: type[CdcrepError]) -> None:
    error = kind("what happened", hint="what to type")

    assert (error.message, error.hint, str(error)) == ("what happened", "what to type", "what happened")
    assert isinstance(error, CdcrepError)


def test_every_kind_has_its_own_exit_code() -> None:
    codes = [kind.exit_code for kind in [CdcrepError, *KINDS]]

    assert len(set(codes)) == len(codes)
    assert 0 not in codes
