"""Requests to an OpenAI-compatible service: errors sorted into those that end the run and those worth another try."""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import openai

from rcnn.describing.answers import Reply

T = TypeVar("T")
PASSING = (408, 409, 425, 429)  # of the 4xx, those worth another try; after the others the next request would fare no better
OWN_FAULT = (413, 422)  # of this request alone
LONGEST_WAIT = 300  # seconds; where a service asks for more, the request fails
OPENAI = "https://api.openai.com/v1"  # explicit, since the openai package would follow OPENAI_BASE_URL


class StopError(ValueError):
    """The run cannot go on; what was answered is kept, and the same command continues."""


class UnansweredError(ValueError):
    """One request failed after all its tries; others may not."""


class InterruptedRunError(Exception):
    """The run is ending; nothing new is sent."""


class Service:
    """An OpenAI-compatible service; requests that fail in passing are tried again with exponential back-off.

    StopError for OpenAI without OPENAI_API_KEY in the environment.
    """

    def __init__(self, base_url: str | None, timeout: float, retries: int) -> None:
        self._key = os.environ.get("OPENAI_API_KEY")
        if not self._key and base_url is None:
            raise StopError("OpenAI wants a key: set OPENAI_API_KEY, or base_url= to a service of your own")
        # a local server accepts any key; retries are done here, since the client repeats an exhausted quota in vain
        self.openai = openai.OpenAI(api_key=self._key or "none", base_url=base_url or OPENAI, timeout=timeout, max_retries=0)
        self.retries = retries
        self.trouble: str | None = None  # why the latest try failed
        self.halt = threading.Event()  # set it to end the run: waits are cut short, and nothing new is sent
        self._not_before = 0.0  # time.monotonic() before which no thread sends, as the service has asked

    def complete(self, body: dict[str, Any]) -> Reply:
        """Reply to one chat completion; StopError or UnansweredError if there is none."""

        def request():
            response = self.openai.chat.completions.with_raw_response.create(**body)
            try:
                return Reply.from_completion(json.loads(response.text))
            except ValueError:  # no JSON, or another JSON: a proxy's error page, a cut connection
                found = repr(response.text[:80])
                raise ConnectionError(f"answered 200 with something that is no chat completion: {found}") from None

        return self.call(request)

    def call(self, request: Callable[[], T]) -> T:
        """The result of `request()`, tried again where that may help; StopError or UnansweredError if there is none."""
        for attempt in range(self.retries + 1):
            self._wait(self._not_before - time.monotonic())
            try:
                result = request()
                self.trouble = None
                return result
            except openai.APIStatusError as error:
                message = self.clean(f"{error.request.url} answered {error.status_code}: {_message(error)}")
                if error.status_code in OWN_FAULT or error.code == "content_filter":
                    raise UnansweredError(message) from None
                fatal = error.status_code < 500 and error.status_code not in PASSING
                if fatal or error.code in ("insufficient_quota", "billing_hard_limit_reached"):
                    raise StopError(message) from None
                hint = _hint(error.response.headers)
            except (openai.APIConnectionError, ConnectionError, json.JSONDecodeError) as error:
                message, hint = self.clean(f"{self.openai.base_url}: {error.__cause__ or error}"), None
            self.trouble = message
            if hint is not None and hint > LONGEST_WAIT:
                raise UnansweredError(f"{message}; it asks to wait {hint:.0f} s")
            if hint is not None:
                self._not_before = max(self._not_before, time.monotonic() + hint)
            elif attempt < self.retries:
                self._wait(min(30.0, 2.0**attempt) * random.uniform(0.75, 1.25))
        raise UnansweredError(message)

    def _wait(self, seconds: float) -> None:
        if (seconds > 0 and self.halt.wait(seconds)) or self.halt.is_set():
            raise InterruptedRunError

    def clean(self, text: Any) -> str:
        """`text` on one line, without the key, which a service may echo."""
        text = " ".join(str(text).split())
        return text.replace(self._key, "<key>") if self._key else text


def _message(error: openai.APIStatusError) -> str:
    """What the service says is wrong, in its own words."""
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.response.text or error.response.reason_phrase)[:300]


def _hint(headers: Mapping[str, str]) -> float | None:
    """Seconds that the service asks to wait, or None."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None
