"""Requests to an OpenAI-compatible service: errors sorted into those that end the run and those worth another try."""

import base64
import json
import math
import os
import random
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx2
import openai

from rcnn.describing.address import Address
from rcnn.describing.answers import Reply
from rcnn.describing.transport import Transport
from rcnn.printing import cut, printable, short

T = TypeVar("T")
PASSING = (408, 409, 425, 429)  # of the 4xx, those worth another try; after the others the next request would fare no better
OWN_FAULT = (413, 422)  # of this request alone
QUOTA = ("insufficient_quota", "billing_hard_limit_reached")  # a 429 that no wait mends
LONGEST_WAIT = 300  # seconds; where a service asks for more, the request fails
OPENAI = "https://api.openai.com/v1"  # explicit, since the openai package would follow OPENAI_BASE_URL
MOST_MODELS = 20  # that are named
ENDS = {"gpt-4o-mini": "2027-01-14"}  # announced by OpenAI
SECRET = 8  # characters; what is shorter ("none", "ollama") is no secret, and may be a word of an answer


class StopError(ValueError):
    """The run cannot go on; what was answered is kept, and the same command continues."""


class UnansweredError(ValueError):
    """One request failed after all its tries; others may not."""


class InterruptedRunError(Exception):
    """The run is ending; nothing new is sent."""


class StatusError(Exception):
    """The service answered with a status that means failure."""

    def __init__(self, status: int, message: str, code: Any, hint: float | None) -> None:
        super().__init__(message)
        self.status, self.code, self.hint = status, code, hint  # `hint`: seconds that it asks to wait


class Service:
    """An OpenAI-compatible service; requests that fail in passing are tried again with exponential back-off.

    Everything that it says passes `decode` or `clean`, which take out the key before anything is stored, shown or cut; the
    openai package makes the requests, and parses no reply.
    ValueError for a `base_url` that is no address, StopError for OpenAI without OPENAI_API_KEY in the environment.
    """

    def __init__(self, base_url: str | None, timeout: float, retries: int) -> None:
        self._address = Address.parse(OPENAI if base_url is None else base_url)
        key, login, query = os.environ.get("OPENAI_API_KEY", "").strip(), self._address.login, self._address.query
        if not key and base_url is None:
            raise StopError("OpenAI wants a key: set OPENAI_API_KEY, or base_url= to a service of your own")
        if not (key.isascii() and key.isprintable()):
            raise ValueError("OPENAI_API_KEY has characters that no key has")
        user, _, password = login.partition(":")
        client = openai.DefaultHttpxClient(
            transport=Transport(self._address.shown),
            auth=(user, password) if login else None,
            params=query,
            headers={"Accept-Encoding": "gzip"},
            event_hooks={"response": [self._refuse]},
            follow_redirects=False,
        )
        # a local server accepts any key; retries are done here, since the client repeats an exhausted quota in vain
        self.api = openai.OpenAI(
            api_key=key or "none", base_url=self._address.shown, timeout=timeout, max_retries=0, http_client=client
        ).with_raw_response
        basic, values = base64.b64encode(f"{user}:{password}".encode()).decode(), urllib.parse.parse_qsl(query)
        secrets = {key, login, password, basic, query, *(value for _, value in values)}
        secrets = sorted((secret for secret in secrets if len(secret) >= SECRET), key=len, reverse=True)
        # whole, or the beginning of one that the service has cut or changed
        parts = [re.escape(secret) for secret in secrets] + [re.escape(secret[:SECRET]) + r"[^\s\"'\\]*" for secret in secrets]
        self._secrets = re.compile("|".join(parts)) if parts else None
        self.timeout, self.retries = timeout, retries
        self.trouble: str | None = None  # why the latest try failed
        self.halt = threading.Event()  # set it to end the run: waits are cut short, and nothing new is sent
        self._not_before = 0.0  # time.monotonic() before which no thread sends, as the service has asked

    def complete(self, body: dict[str, Any]) -> Reply:
        """Reply to one chat completion; StopError or UnansweredError if there is none."""

        def request():
            try:
                value = self.ask(self.api.chat.completions.create, **body)
            except StatusError as error:
                if error.status == 404:
                    raise StopError(f"{error}; {self._models(body['model'])}") from None
                raise
            try:
                return Reply.from_completion(value)
            except ValueError:
                raise _unlike("chat completion", short(value)) from None

        return self.call(request)

    def ask(self, resource: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """The JSON value that the service answers to one try; the rest as of `fetch`."""
        raw = self.fetch(resource, *arguments, **more)
        try:
            return self.decode(raw)
        except ValueError:
            raise _unlike("JSON", repr(self.clean(raw.decode(errors="replace"))[:80])) from None

    def fetch(self, resource: Callable[..., Any], *arguments: Any, **more: Any) -> bytes:
        """The bytes that the service answers to one try of a resource, such as `api.models.list`.

        Raises:
            StatusError: it answered with a status that means failure.
            StopError: it redirects.
            ConnectionError: it did not answer.
        """
        try:
            return resource(*arguments, **more).http_response.content
        except openai.APIConnectionError as error:
            raise ConnectionError(str(error.__cause__ or error)) from None

    def call(self, request: Callable[[], T]) -> T:
        """The result of `request()`, tried again where that may help; StopError or UnansweredError if there is none."""
        for attempt in range(self.retries + 1):
            self._wait(self._not_before - time.monotonic())
            try:
                result = request()
                self.trouble = None
                return result
            except StatusError as error:
                message, hint = str(error), error.hint
                if error.status in OWN_FAULT or error.code == "content_filter":
                    raise UnansweredError(message) from None
                if (error.status < 500 and error.status not in PASSING) or error.code in QUOTA:
                    raise StopError(message) from None
            except ConnectionError as error:
                message, hint = f"{self._address.shown}: {cut(self.clean(error))}", None
            self.trouble = message
            if hint is not None and hint > LONGEST_WAIT:
                raise UnansweredError(f"{message}; it asks to wait {hint:.0f} s")
            if hint is not None:
                self._not_before = max(self._not_before, time.monotonic() + hint)
            elif attempt < self.retries:
                self._wait(min(30.0, 2.0**attempt) * random.uniform(0.75, 1.25))
        raise UnansweredError(message)

    def decode(self, raw: bytes) -> Any:
        """The value of UTF-8 JSON, whatever charset is claimed, without the key, and without what cannot be stored.

        ValueError for anything else, and for JSON that is nested too deeply.
        """
        try:
            return self._tidied(json.loads(raw.decode("utf-8-sig")))
        except RecursionError:
            raise ValueError("nested too deeply") from None

    def clean(self, text: Any) -> str:
        """`text` on one line, without the key, which a service may echo."""
        return " ".join(self._tidied(str(text)).split())

    def _tidied(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._tidied(name): self._tidied(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._tidied(item) for item in value]
        if not isinstance(value, str):
            return value
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half characters cannot be stored
        if self._secrets:
            value = self._secrets.sub("<key>", value)
        if "\\" in value and value.lstrip()[:1] == "{":  # an answer, which is JSON itself, may have them as escapes
            try:
                inner = json.loads(value)
                if (tidied := self._tidied(inner)) != inner:
                    return json.dumps(tidied, ensure_ascii=False)
            except (ValueError, RecursionError):
                pass
        return value

    def _wait(self, seconds: float) -> None:
        if (seconds > 0 and self.halt.wait(seconds)) or self.halt.is_set():
            raise InterruptedRunError

    def _refuse(self, response: httpx2.Response) -> None:
        """Raise for a redirect or a failure, before the client follows, parses or repeats anything."""
        said = f"{response.request.url.copy_with(query=None)} answered {response.status_code}"
        if response.is_redirect:
            place = self.clean(response.headers.get("location", "an unknown address")).rpartition("@")[2].split("?")[0]
            raise StopError(f"{said}, a redirect to {cut(place)}, which is not followed; if it is right, set base_url=")
        if not response.is_success:
            message, code = self._problem(response.content)
            raise StatusError(response.status_code, f"{said}: {message}", code, _hint(response.headers))

    def _problem(self, body: bytes) -> tuple[str, Any]:
        """(message, code) of an error, in the service's own words."""
        try:
            value = self.decode(body)
            error = value.get("error", value)
            error = error if isinstance(error, dict) else {"message": error}
            message, code = error.get("message"), error.get("code")
        except (ValueError, AttributeError):
            message = code = None
        return cut(self.clean(message or body.decode(errors="replace") or "no reason given"), 300), code

    def _models(self, model: str) -> str:
        """What to do about a model that the service seems not to have."""
        try:
            entries = self.ask(self.api.models.list)["data"]
            offered = [printable(cut(entry["id"], 60)) for entry in entries[: MOST_MODELS + 1]]
        except (StatusError, StopError, ConnectionError, LookupError, TypeError):
            offered = []
        named = f"{short(model)} (its announced end is {ENDS[model]})" if model in ENDS else short(model)
        if not offered:
            return f"perhaps the service has no model {named}: set model=; or base_url= is not where an API begins, as at /v1"
        some = ", ".join(offered[:MOST_MODELS]) + (", …" if len(offered) > MOST_MODELS else "")
        return f"the service has no model {named}; set model= to one that it offers: {some}"


def _unlike(kind: str, found: str) -> ConnectionError:
    """A proxy's error page, a cut connection, …"""
    return ConnectionError(f"answered with something that is no {kind}: {found}")


def _hint(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait, or None."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, TypeError, ValueError):
            continue
        return seconds if 0 <= seconds < math.inf else None
    return None
