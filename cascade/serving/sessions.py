"""Browsers where a token is needed: a cookie stands for the token.

A browser asks for the pictures of a page without any header. The cookie is made from the token and
isn't the token, so what is kept in a browser opens nothing but this server, and there is nothing to
remember here. A script can't read it, and no page of another site sends it. Cookies don't tell
ports apart, so its name differs from token to token.
"""

import hashlib
import hmac
from http.cookies import CookieError, SimpleCookie

_SECONDS = 30 * 24 * 3600


class Sessions:
    """The sessions of a server that needs a token.

    Attributes:
        name: of the cookie.
    """

    def __init__(self, token: str) -> None:
        """Make them for a token."""
        self.name = f"clip-cascade-{_derived(token, 'name')[:8]}"
        self._value = _derived(token, "session")

    def cookie(self, secure: bool) -> str:
        """The header Set-Cookie that begins a session; `secure`: it was asked for over TLS."""
        return self._header(self._value, _SECONDS, secure)

    def no_cookie(self, secure: bool) -> str:
        """The header Set-Cookie that ends a session in this browser."""
        return self._header("", 0, secure)

    def known(self, cookies: str | None) -> bool:
        """Whether the header Cookie has the cookie of a session."""
        try:
            given = SimpleCookie(cookies or "").get(self.name)
        except CookieError:
            return False
        value = "" if given is None else given.value
        return hmac.compare_digest(value.encode("utf-8", "replace"), self._value.encode())

    def _header(self, value: str, seconds: int, secure: bool) -> str:
        parts = [f"{self.name}={value}", "Path=/", f"Max-Age={seconds}", "HttpOnly"]
        return "; ".join([*parts, "SameSite=Strict", *(["Secure"] if secure else [])])


def _derived(token: str, use: str) -> str:
    return hmac.new(token.encode(), f"clip-cascade {use}".encode(), hashlib.sha256).hexdigest()
