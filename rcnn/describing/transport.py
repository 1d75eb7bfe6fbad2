"""HTTP exchanges with a service that nobody vouches for: one deadline for all of a reply, and a bounded body."""

import concurrent.futures
import functools
import threading
import urllib.request
import zlib

import httpx2

from rcnn.describing.address import is_address

MOST = 4 << 20  # bytes of a reply
MOST_FILE = 512 << 20  # of a file's content
KEPT = ("location", "retry-after", "retry-after-ms")  # headers; the client would act on others, such as cookies


class Transport(httpx2.BaseTransport):
    """Exchanges within the request's timeout, through the proxy that the environment names for `url`.

    The limits of httpx2 itself begin anew with every byte, and it reads and decompresses without a bound.
    ValueError for a proxy that is none.
    """

    def __init__(self, url: str) -> None:
        self._proxy = _proxy(httpx2.URL(url))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        seconds = request.extensions["timeout"]["read"]
        reply: concurrent.futures.Future[httpx2.Response] = concurrent.futures.Future()
        try:
            # connections of this exchange alone: to close them ends it
            with httpx2.HTTPTransport(verify=_tls(), proxy=self._proxy) as inner:
                threading.Thread(target=_exchange, args=(inner, request, reply), daemon=True).start()
                return reply.result(seconds)
        except (TimeoutError, httpx2.TimeoutException):
            raise httpx2.ReadTimeout(f"no complete reply within {seconds:g} s, the timeout=") from None
        except (OSError, ValueError, zlib.error) as error:
            raise httpx2.ReadError(str(error) or type(error).__name__) from None


_tls = functools.cache(httpx2.create_ssl_context)


def _exchange(inner: httpx2.HTTPTransport, request: httpx2.Request, reply: concurrent.futures.Future) -> None:
    try:
        response = inner.handle_request(request)
        headers = {name: response.headers[name] for name in KEPT if name in response.headers}
        body = _body(response, MOST_FILE if request.url.path.endswith("/content") else MOST)
        reply.set_result(httpx2.Response(response.status_code, headers=headers, content=body, request=request))
    except Exception as error:  # raised where the reply is waited for
        reply.set_exception(error)


def _body(response: httpx2.Response, most: int) -> bytes:
    """The decompressed body; ValueError if that, or what comes through the network, has more than `most` bytes."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise ValueError("the reply is compressed in a way that was not asked for")
    inflate = None if encoding in ("identity", "") else zlib.decompressobj(32 + zlib.MAX_WBITS)  # either, by its header
    body, received = bytearray(), 0
    for chunk in response.iter_raw():
        received += len(chunk)
        body += inflate.decompress(chunk, most + 1 - len(body)) if inflate else chunk
        if max(received, len(body)) > most:
            raise ValueError(f"the reply has more than {most:,} bytes")
    if inflate and not inflate.eof:
        raise ValueError("the compressed reply is cut off")
    return bytes(body)


def _proxy(url: httpx2.URL) -> httpx2.Proxy | None:
    proxies = urllib.request.getproxies()
    kind = url.scheme if proxies.get(url.scheme) else "all"
    place = proxies.get(kind)
    if not place or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    place = place if "://" in place else f"http://{place}"
    if not is_address(place):
        raise ValueError(f"{kind}_proxy in the environment: expected an address such as http://localhost:3128")
    return httpx2.Proxy(place)
