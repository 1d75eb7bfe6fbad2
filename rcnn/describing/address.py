"""The address of a service, with its secrets apart."""

import re
import urllib.parse
from dataclasses import dataclass

import httpx2

from rcnn.printing import cut


@dataclass(frozen=True)
class Address:
    """Where a service is; the parts of its address that may be secret are kept apart, and are neither shown nor stored."""

    shown: str  # without them
    query: str = ""
    login: str = ""  # user:password

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From the address of an API, such as http://localhost:11434/v1; ValueError if it is none."""
        if not is_address(url):
            public = cut(url.rpartition("@")[2].split("?")[0], 100)
            raise ValueError(f"base_url: expected an address such as http://localhost:11434/v1, got {public!r}")
        parts = urllib.parse.urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        if login or parts.query or parts.fragment:
            url = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
        return cls(url, parts.query, urllib.parse.unquote(login))


def is_address(url: str) -> bool:
    """Whether requests can be sent there."""
    try:
        parts = urllib.parse.urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and httpx2.URL(url).host
    except (ValueError, httpx2.InvalidURL):
        return False
    return bool(valid) and not re.search(r"[^!-~]", url)
