"""Requests to an OpenAI-compatible service: errors sorted into those that end the run and those worth another try."""

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time

import openai

from rcnn.describing.answers import Reply
from rcnn.describing.tasks import Failure, advance

PASSING = (408, 409, 425, 429)  # of the 4xx, those worth another try; after the others the next request would fare no better
OWN_FAULT = (413, 422)  # of this request alone
LONGEST_WAIT = 300  # seconds; a service that asks for more has, for now, nothing to give
FAILURES_IN_A_ROW = 10  # then the service is taken to be down


OPENAI = "https://api.openai.com/v1"  # said outright: the package would else follow OPENAI_BASE_URL unseen


class StopError(ValueError):
    """The run cannot go on; what was answered is kept, and the same command continues."""


class UnansweredError(Exception):
    """One request failed for good; others may not."""


class InterruptedRunError(Exception):
    """The run is ending; nothing new is sent."""


class Client:
    """One service, its key, and its manners.

    Args:
        base_url: None for OpenAI; else such as "http://localhost:8000/v1" (vLLM, Ollama, llama.cpp).
        timeout: seconds for one request.
        retries: further tries after a 409, 429, 5xx, a network error or a reply that is none.

    Raises:
        StopError: OpenAI without OPENAI_API_KEY in the environment.
    """

    def __init__(self, base_url=None, timeout=120.0, retries=5):
        self._key = os.environ.get("OPENAI_API_KEY")
        if not self._key and base_url is None:
            raise StopError("OpenAI wants a key: set OPENAI_API_KEY, or base_url= to a service of your own")
        # a local server wants a key, but not which; retries are ours, since the client repeats an exhausted quota in vain
        self.openai = openai.OpenAI(api_key=self._key or "none", base_url=base_url or OPENAI, timeout=timeout, max_retries=0)
        self.retries, self.halt, self.trouble = retries, threading.Event(), None
        self._not_before = 0.0  # time.monotonic() until which the service has asked for peace

    def complete(self, body):
        """Reply to one chat completion; StopError or UnansweredError if there is none."""
        return self.call(lambda: self._complete(body))

    def _complete(self, body):
        response = self.openai.chat.completions.with_raw_response.create(**body)
        try:
            return Reply.from_completion(json.loads(response.text))
        except ValueError:
            # no JSON, or another JSON: a proxy's error page, a cut connection
            raise ConnectionError(f"answered 200 with something that is no chat completion: {response.text[:80]!r}") from None

    def call(self, request):
        """The result of `request()`, tried again where that may help."""
        for attempt in range(self.retries + 1):
            self._wait(self._not_before - time.monotonic())
            hint = None
            try:
                result = request()
            except openai.APIStatusError as error:
                message = self.clean(f"{error.request.url} answered {error.status_code}: {_message(error)}")
                if error.status_code in OWN_FAULT or error.code == "content_filter":
                    raise UnansweredError(message) from None
                fatal = error.status_code < 500 and error.status_code not in PASSING
                if fatal or error.code in ("insufficient_quota", "billing_hard_limit_reached"):
                    raise StopError(message) from None
                hint = _hint(error.response.headers)
            except (openai.APIConnectionError, ConnectionError, json.JSONDecodeError) as error:
                message = self.clean(f"{self.openai.base_url}: {error.__cause__ or error}")
            else:
                self.trouble = None
                return result
            self.trouble = message
            if hint is not None and hint > LONGEST_WAIT:
                raise UnansweredError(f"{message}; it asks to wait {hint:.0f} s")
            if attempt < self.retries:
                pause = min(30.0, 2.0**attempt) * random.uniform(0.75, 1.25) if hint is None else hint
                if hint is not None:
                    self._not_before = max(self._not_before, time.monotonic() + hint)  # every thread keeps the peace
                self._wait(pause)
        raise UnansweredError(message)

    def _wait(self, seconds):
        if (seconds > 0 and self.halt.wait(seconds)) or self.halt.is_set():
            raise InterruptedRunError

    def clean(self, text):
        """`text` on one line, without the key, which a service may echo."""
        text = " ".join(str(text).split())
        return text.replace(self._key, "<key>") if self._key else text


def _message(error):
    """What the service says is wrong, in its own words."""
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.response.text or error.response.reason_phrase)[:300]


def _hint(headers):
    """Seconds that the service asks to wait, or None."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def run(tasks, service, store, client, concurrency, allowed, done):
    """Bring every task to its end, several at a time.

    On an interrupt, or when `allowed` says no, nothing new is sent, and requests under way are waited for and stored.

    Args:
        tasks: list of Task.
        service: Service.
        store: Answers.
        client: Client.
        concurrency: threads.
        allowed: () -> None or a reason not to send another request; called before each.
        done: (task, answer or Failure) -> None; called as each ends, by one thread at a time.

    Raises:
        StopError: the service refuses all requests, or `allowed` said no.
        KeyboardInterrupt: after the drain; a second one does not wait.
    """
    queue, lock, ends = iter(tasks), threading.Lock(), []
    failing = set()  # classes with a failure since the last good answer; one class may well be refused throughout

    def finish(task):
        while True:
            step, keys = advance(task, service, store)
            if not isinstance(step, dict):
                return step
            with lock:
                if reason := allowed():
                    raise StopError(reason)
            try:
                reply = client.complete(step)
            except UnansweredError as error:
                return Failure(str(error))
            store.put(keys[-1], reply, **task.about)

    def work():
        nonlocal failing
        try:
            while not client.halt.is_set():
                with lock:
                    task = next(queue, None)
                if task is None:
                    return
                end = finish(task)
                with lock:
                    failing = failing | {task.name} if isinstance(end, Failure) else set()
                    done(task, end)
                    if len(failing) == FAILURES_IN_A_ROW:
                        raise StopError(f"{len(failing)} classes in a row failed; the last: {end.why}")
        except InterruptedRunError:
            pass
        except BaseException as error:
            ends.append(error)
            client.halt.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(concurrency)]
    with _first_interrupt_sets(client.halt) as interrupted:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # with a limit, so that an interrupt is seen at once
    if interrupted:
        raise KeyboardInterrupt
    if ends:
        raise ends[0]


@contextlib.contextmanager
def _first_interrupt_sets(halt):
    """Yield a list that is no longer empty after an interrupt, which sets `halt`; the second one raises as usual.

    An exception could come at any point of the main thread, even between starting a worker and knowing of it.
    """
    interrupted = []

    def handle(*_):
        if interrupted:
            raise KeyboardInterrupt
        interrupted.append(True)
        halt.set()
        print("\nfinishing the requests under way; press again to abandon them", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():  # only the main thread is ever interrupted
        yield interrupted
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
