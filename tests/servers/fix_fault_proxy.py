"""Fixture: breakable connections to a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.servers.fault_proxy import FaultProxy


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[str], FaultProxy]]:
    """Put a proxy before a URL's server: `proxy = fault_proxy(database.url)`; connect to `proxy.url(database.url)`."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(FaultProxy.before(url))
