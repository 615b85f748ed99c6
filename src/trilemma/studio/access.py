"""Who may ask the studio: the addresses it answers to, the token, the password, and the limits of a request.

A page of somebody else in the same browser can send requests to this machine, and a name of theirs can point to it (DNS
rebinding). So every route, reading ones too, checks Host, Origin and the token, which a cookie carries that only pages
of the studio send. An address in numbers cannot be rebound; a name is only taken if it is this machine's.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from trilemma.studio.place import NO_PAGE

LOOPBACK = ("127.0.0.1", "localhost", "::1")
READING, METHODS = ("GET", "HEAD"), ("GET", "HEAD", "POST")
PATH = re.compile(r"(?:/[A-Za-z0-9_-]+)*(?:\.[a-z]+)?/?")  # of every route: names and ids, never a path of a file
LONGEST_PATH, LONGEST_QUERY = 200, 4_000  # bytes
LARGEST_FORM = 256 << 10  # bytes
LARGEST = {
    "/data/upload": 512 << 20,
    "/sample/receipt": 64 << 20,
    "/edit/image": 64 << 20,
}  # bytes, of routes for files
ENTRY = "/enter"
PASSWORD = "TRILEMMA_STUDIO_PASSWORD"  # in the environment, as a command line can be read by others
NO_METHOD = "This method is not supported: pages are asked for by GET, and forms are sent by POST."
LONG_ADDRESS = f"The address has more than {LONGEST_QUERY:,} bytes after its question mark. Fill in fewer fields."


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered: a status of HTTP, and a sentence."""

    status: int
    text: str


@dataclass(frozen=True)
class Access:
    """What a studio that listens at `host` and `port` answers to.

    host: a name or a number, without the brackets of an address; password: asked for where others can reach it; None on
    the loopback address, where the token is enough.
    """

    host: str
    port: int
    password: str | None = None
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def address(self) -> str:
        """The address that lets a browser in."""
        if self.password is not None:
            return f"{self.origin}{ENTRY}"
        return f"{self.origin}{ENTRY}?token={self.token}"

    @property
    def cookie(self) -> str:
        """The name of the cookie; browsers do not keep those of two ports apart."""
        return f"trilemma-{self.port}"

    @property
    def origin(self) -> str:
        """The address without what lets in."""
        return f"http://{in_address(self.host)}:{self.port}"

    def is_token(self, text: str) -> bool:
        """Whether a text is the token, in a time that tells nothing."""
        return hmac.compare_digest(text.encode(), self.token.encode())

    def is_password(self, text: str) -> bool:
        """Whether a text is the password, in a time that tells nothing."""
        return self.password is not None and hmac.compare_digest(text.encode(), self.password.encode())

    def is_own(self, netloc: str) -> bool:
        """Whether NAME:PORT, as in Host or in an Origin, is an address of this studio."""
        name, _, port = netloc.rpartition(":")
        if port != str(self.port):
            return False
        if name in map(in_address, LOOPBACK):
            return True
        return self.password is not None and (_is_number(name) or name.lower() == socket.gethostname().lower())

    def refusal(self, method: str, path: bytes, query: bytes, headers: Mapping[str, list[str]]) -> Refusal | None:
        """Why a request is not answered; None if it is.

        Args:
            path: as it was sent, before anything in it is decoded.
            headers: the values by name in lower case.
        """
        if method not in METHODS:
            return Refusal(405, NO_METHOD)
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self.is_own(hosts[0]):
            return Refusal(403, "This is not an address of the studio. Use the one that the terminal shows.")
        if (refusal := self._foreign(method, path, headers)) is not None:
            return refusal
        text = path.decode("latin-1")
        if len(text) > LONGEST_PATH or not PATH.fullmatch(text):
            return Refusal(404, NO_PAGE)
        if len(query) > LONGEST_QUERY:
            return Refusal(414, LONG_ADDRESS)
        if text != ENTRY and not self._has_token(headers):
            return Refusal(401, "Open the address that the terminal shows; it lets this browser in.")
        return _too_large(text, headers)

    def _foreign(self, method: str, path: bytes, headers: Mapping[str, list[str]]) -> Refusal | None:
        """Why a request that a page of somebody else may have sent is refused."""
        refusal = Refusal(403, "This is not sent by a page of the studio. Open the address that the terminal shows.")
        origins, sites = headers.get("origin", []), headers.get("sec-fetch-site", [])
        if method not in READING and len(origins) != 1:
            return refusal
        if any(origin.lower() != f"http://{headers['host'][0]}".lower() for origin in origins):
            return refusal
        enters = (
            path == ENTRY.encode() and method in READING
        )  # by a link, from anywhere: what counts there is the token
        return None if enters or all(site in ("same-origin", "none") for site in sites) else refusal

    def _has_token(self, headers: Mapping[str, list[str]]) -> bool:
        pairs = [pair.strip().partition("=") for line in headers.get("cookie", []) for pair in line.split(";")]
        return any(name == self.cookie and self.is_token(value) for name, _, value in pairs)


def in_address(host: str) -> str:
    """A host as an address has it: a number of IPv6 in brackets.

    >>> in_address("::1"), in_address("127.0.0.1")
    ('[::1]', '127.0.0.1')
    """
    return f"[{host}]" if ":" in host else host


def largest_body(path: str) -> int:
    """Bytes that a request to a route may carry."""
    return LARGEST.get(path, LARGEST_FORM)


def too_large(most: int) -> Refusal:
    """The refusal of a body of more bytes than that."""
    text = f"This is more than {most:,} bytes, the most that is taken. Send less at once, or put files into the folder."
    return Refusal(413, text)


def _too_large(path: str, headers: Mapping[str, list[str]]) -> Refusal | None:
    """The refusal of a body whose stated length is none, or too much; what comes is counted besides."""
    for text in headers.get("content-length", []):
        if not re.fullmatch("[0-9]{1,18}", text):
            return Refusal(400, "The length of the request is not a number.")
        if int(text) > largest_body(path):
            return too_large(largest_body(path))
    return None


def _is_number(name: str) -> bool:
    """Whether a host is an address in numbers."""
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
