"""HTTP requests to a service that nobody vouches for: one deadline for all of a reply, a bounded body, no redirects."""

import contextlib
import functools
import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rcnn.printing import cut

HEADERS = 1 << 20  # bytes of a reply beside its body


@dataclass(frozen=True)
class Address:
    """Where a service is; the parts of its address that may be secret are kept apart, and are neither shown nor stored."""

    shown: str  # without them
    query: str = ""
    login: str = ""  # user:password

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From the address of an API, such as http://localhost:11434/v1; ValueError if it is none."""
        try:
            parts = urllib.parse.urlsplit(url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and url.isascii()
        except ValueError:
            valid = False
        if not valid or re.search(r"[\s\x00-\x1f\x7f]", url):
            public = cut(url.rpartition("@")[2].split("?")[0], 100)
            raise ValueError(f"base_url: expected an address such as http://localhost:11434/v1, got {public!r}")
        login, _, host = parts.netloc.rpartition("@")
        if login or parts.query or parts.fragment:
            url = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
        return cls(url, parts.query, urllib.parse.unquote(login))

    def join(self, path: str) -> str:
        """The address of a path below, with the query."""
        return self.shown.rstrip("/") + path + (("&" if "?" in path else "?") + self.query if self.query else "")


class Response(NamedTuple):
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes  # decompressed


def send(request: urllib.request.Request, seconds: float, most: int) -> Response:
    """The response to a request, a redirect's too; the proxies of the environment are used.

    Raises:
        ConnectionError: there is none within `seconds`, it is no HTTP, is cut off, or has a body of more than `most` bytes.
    """
    opener = urllib.request.OpenerDirector()  # one that neither follows redirects nor raises for a status
    for handler in (urllib.request.ProxyHandler(), _Handler(most)):
        opener.add_handler(handler)
    try:
        with opener.open(request, timeout=seconds) as response:
            body = response.read(most + 1)
            if response.length and len(body) <= most:
                raise ConnectionError("the reply is cut off")
            return Response(response.status, response.headers, _decompressed(body, response.headers, most))
    except urllib.error.URLError as error:
        raise ConnectionError(str(error.reason)) from None
    except TimeoutError:
        raise ConnectionError(f"no complete reply within {seconds:g} s, the timeout=") from None
    except (http.client.HTTPException, OSError, ValueError, zlib.error) as error:
        raise ConnectionError(str(error) or type(error).__name__) from None


def _decompressed(body: bytes, headers: Mapping[str, str], most: int) -> bytes:
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding in ("gzip", "x-gzip", "deflate"):
        inflate = zlib.decompressobj(32 + zlib.MAX_WBITS)  # either, by its header
        body = inflate.decompress(body, most + 1)
        if len(body) <= most and not inflate.eof:
            raise ConnectionError("the compressed reply is cut off")
    elif encoding not in ("identity", ""):
        raise ConnectionError("the reply is compressed in a way that was not asked for")
    if len(body) > most:
        raise ConnectionError(f"the reply has more than {most:,} bytes")
    return body


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Connections whose replies come through `_Incoming`."""

    def __init__(self, most: int) -> None:
        super().__init__(context=_tls())
        self.most = most

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_connection, self.most, http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        kind = functools.partial(http.client.HTTPSConnection, context=_tls())
        return self.do_open(functools.partial(_connection, self.most, kind), request)


_tls = functools.cache(ssl.create_default_context)


def _connection(most: int, kind: Callable, host: str, timeout: float) -> http.client.HTTPConnection:
    connection, end = kind(host, timeout=timeout), time.monotonic() + timeout
    connection.response_class = lambda sock, **more: http.client.HTTPResponse(_Incoming(sock, end, most + HEADERS), **more)
    return connection


class _Incoming(io.RawIOBase):
    """The bytes that come through a socket, until a deadline, and so many at most.

    A socket's own time limit begins anew with every byte, and neither it nor http.client limits how many there are.
    """

    def __init__(self, sock: socket.socket, end: float, most: int) -> None:
        self._socket, self._end, self._left = sock, end, most
        self._stream = sock.makefile("rb", buffering=0)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client asks a socket for."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self._socket.settimeout(seconds)
        count = self._stream.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise ConnectionError("the reply is too long")
        return count

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.close()
        super().close()
