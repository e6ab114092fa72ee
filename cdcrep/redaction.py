"""Keeping passwords out of everything that is printed: by where they stand in a URL, and by what they are."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote, urlsplit

HIDDEN: Final = "***"

# Greedy up to the last `@`: a password that was not percent-encoded is hidden as a whole, whatever it contains.
_IN_URL: Final = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]*://[^\s/:@]*:)[^\s]*@", re.IGNORECASE)
_IN_PAIR: Final = re.compile(
    r"""(?P<before>(?:password|passwd|passphrase|pwd|token|secret)(?:["']\s*:|\s*=)\s*)"""
    r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s&,;'"]+)""",
    re.IGNORECASE,
)
# Shorter ones would hide half of every sentence.
_SHORTEST_CONCEALED: Final = 4

_concealed: set[str] = set()


def redact(text: str) -> str:
    """Return the text without the passwords of URLs, `password=` pairs and everything given to `conceal`."""
    text = _IN_URL.sub(rf"\g<before>{HIDDEN}@", text)
    text = _IN_PAIR.sub(rf"\g<before>{HIDDEN}", text)
    for secret in sorted(_concealed, key=len, reverse=True):
        if secret in text:
            # Not inside a longer word: the password `shop` must not hide the table `shopping_carts`.
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", HIDDEN, text)
    return text


def conceal(secret: str) -> None:
    """Have `redact` hide this value wherever it appears, also percent-encoded."""
    for form in (secret, quote(secret, safe=""), quote(secret)):
        if len(form) >= _SHORTEST_CONCEALED:
            _concealed.add(form)


def conceal_url(url: str) -> bool:
    """Conceal the password of a URL; tell whether it has one."""
    password = url_password(url)
    if password:
        conceal(password)
        conceal(unquote(password))
    return password is not None


def url_password(url: str) -> str | None:
    """Return the password in a URL's user part or its `password=` parameter, as it is written."""
    scheme, _, rest = url.partition("://")
    if not rest or not scheme:
        return None
    # Not urlsplit's: it cuts at the first `/`, `?` or `#`, which a password that was not encoded may contain.
    user_part = rest.rpartition("@")[0]
    if ":" in user_part and "/" not in user_part.partition(":")[0]:
        return user_part.partition(":")[2]
    found = re.search(r"[?&]password=([^&#]*)", rest)
    return found.group(1) if found else None


def without_credentials(url: str) -> str:
    """Return scheme, host, port and path of a URL: what names a database, whoever connects to it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return redact(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
