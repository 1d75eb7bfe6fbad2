"""The same exchanges through the Batch API: half the price, an answer within a day (docs: 50,000 requests, 200 MB a file)."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rcnn.describing.answers import Answers, Reply
from rcnn.describing.cost import Cost
from rcnn.describing.exchange import Exchange, Failure
from rcnn.describing.service import PASSING, Service, StopError, UnansweredError
from rcnn.describing.transport import MOST
from rcnn.files import read_json, write_json
from rcnn.printing import cut, printable, short

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS = 20_000  # in one file; of at most 10 kB each, within 200 MB
SLOWEST = 100_000  # bytes a second: so much time a file may take on its way to the service
TRIES = 3  # of one request, over several batches
PAGES = 10  # of a hundred batches each, in which one of an earlier run is looked for
WORKING, OVER = ("validating", "in_progress", "finalizing", "cancelling"), ("completed", "failed", "expired", "cancelled")
LOOKS = 100  # in a row that may fail

KEY = re.compile(r"[0-9a-f]{32}")  # Exchange.key
Identity = Annotated[str, Field(pattern=r"^[A-Za-z0-9_:-][A-Za-z0-9_.:-]{0,199}$")]


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True)


class State(_Checked):
    """What the state file remembers: the batches under way, and a file that was sent for one more."""

    batches: list[Identity]
    uploaded: Identity | None = None  # nobody knows yet whether there is a batch of it

    @classmethod
    def read(cls, path: Path) -> "State":
        """From a file; ValueError for another one."""
        try:
            return cls.model_validate(read_json(path)) if path.exists() else cls(batches=[])
        except ValidationError:
            raise ValueError(
                f"{path} does not tell which batches are under way; delete it, and --batch asks for what is missing anew"
            ) from None


class _File(_Checked):
    id: Identity


class _Batch(_Checked):
    """A batch, as far as it is looked at."""

    id: Identity
    status: str
    input_file_id: Identity | None = None
    output_file_id: Identity | None = None
    error_file_id: Identity | None = None
    request_counts: Any = None
    errors: Any = None


class _Batches(_Checked):
    data: list[_Batch]
    has_more: bool = False


Kind = TypeVar("Kind", bound=_Checked)


def run(exchanges: list[Exchange], service: Service, store: Answers, cost: Cost, path: Path, poll: float) -> Iterator[Exchange]:
    """Bring every exchange to its outcome by batches, and yield it then; each batch sends what the one before calls for.

    The file at `path` remembers the batches under way, so that the same command, later, collects them.

    Raises:
        StopError: a batch failed, the service refuses it, or it would exceed the limit of the cost.
        UnansweredError: the service could not be reached; the same command continues.
    """
    tries, state = Counter(), State.read(path)
    while pending := {exchange.key: exchange for exchange in exchanges if exchange.outcome is None}:
        waiting = list(pending.values())
        if state.uploaded:
            cost.check(waiting)
            _create(service, state, path)  # or find it: an earlier run ended before it knew
        if not state.batches:
            cost.check(waiting)
            for start in range(0, len(waiting), MOST_REQUESTS):
                state.uploaded = _upload(service, waiting[start : start + MOST_REQUESTS])
                _create(service, state, path)
        errors, stopped = {}, []
        for identity in state.batches:
            batch = _wait(service, identity, poll)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                content = service.call(lambda file=file: service.fetch(service.api.files.content, file))
                for line in content.splitlines():
                    _take(line, pending, store, errors, service)
            if batch.status in ("failed", "cancelled"):
                stopped.append(f"batch {identity} {batch.status}: {_reasons(batch)}")
        state = State(batches=[])
        path.unlink(missing_ok=True)
        if stopped:
            raise StopError("; ".join(stopped))
        for key, exchange in pending.items():
            if exchange.outcome is None and exchange.key == key:
                tries[key] += 1
                if tries[key] == TRIES:
                    exchange.outcome = Failure(errors.get(key, "the batch has no answer"))
            if exchange.outcome is not None:
                yield exchange


def _upload(service: Service, exchanges: list[Exchange]) -> str:
    """Send the next requests of these exchanges; returns the file's identity."""
    requests = [{"custom_id": e.key, "method": "POST", "url": ENDPOINT, "body": e.next_request()} for e in exchanges]
    file = ("requests.jsonl", "".join(json.dumps(request) + "\n" for request in requests).encode())
    more = {"purpose": "batch", "timeout": max(service.timeout, len(file[1]) / SLOWEST)}
    return _checked(_File, service.call(lambda: service.ask(service.api.files.create, file=file, **more))).id


def _create(service: Service, state: State, path: Path) -> None:
    """Have a batch of the file that was uploaded, exactly one, however a try or a run ends."""
    write_json(path, state.model_dump())  # before the batch is there: then it can be found again

    def request():
        if found := _find(service, state.uploaded):  # made by a try, or a run, that has not learned of it
            return found
        body = {"input_file_id": state.uploaded, "endpoint": ENDPOINT, "completion_window": "24h"}
        once = {"Idempotency-Key": f"rcnn-{state.uploaded}"}
        return _checked(_Batch, service.ask(service.api.batches.create, **body, extra_headers=once))

    try:
        state.batches.append(service.call(request).id)
    except StopError as error:
        raise StopError(f"{error}; the same command tries again, and without {path} it sends the requests anew") from None
    state.uploaded = None
    write_json(path, state.model_dump())  # before anything else can go wrong: it is paid for


def _find(service: Service, file: str) -> _Batch | None:
    """The batch of an uploaded file, if the service has one."""
    where: dict[str, Any] = {"limit": 100}
    for _ in range(PAGES):
        page = _checked(_Batches, service.ask(service.api.batches.list, **where))
        if found := next((batch for batch in page.data if batch.input_file_id == file), None):
            return found
        if not (page.has_more and page.data):
            break
        where["after"] = page.data[-1].id
    return None


def _wait(service: Service, identity: str, poll: float) -> _Batch:
    """The batch when it is over."""
    failed = 0
    try:
        while True:
            try:
                batch = _checked(_Batch, service.call(lambda: service.ask(service.api.batches.retrieve, identity)))
                if batch.status in OVER:
                    return batch
                if batch.status not in WORKING:
                    raise StopError(f"batch {identity} has an unknown status, {short(batch.status)}; run again to look again")
                counts = batch.request_counts if isinstance(batch.request_counts, dict) else {}
                done, total = counts.get("completed"), counts.get("total")
                known = isinstance(done, int) and isinstance(total, int)
                news, failed = batch.status + (f", {short(done)} of {short(total)}" if known else ""), 0
            except UnansweredError as error:
                news, failed = str(error), failed + 1  # the batch continues while the network is away
                if failed == LOOKS:
                    raise UnansweredError(f"batch {identity}: {error}; the same command looks again") from None
            print(printable(f"batch {identity}: {news}"), file=sys.stderr)
            time.sleep(poll)
    except KeyboardInterrupt:
        print(f"\nbatch {identity} continues at the service; the same command collects it", file=sys.stderr)
        raise


def _take(line: bytes, pending: dict[str, Exchange], store: Answers, errors: dict[str, str], service: Service) -> None:
    """Go on with one line of an output or error file; `errors` gets the reason where there is no answer."""
    try:
        record = service.decode(line) if len(line) <= MOST else {}
        key, response = record["custom_id"], record.get("response") or {}
        code, body = response.get("status_code"), response.get("body")
        problem = record.get("error") or (body.get("error") if isinstance(body, dict) else None) or {}
        message = problem.get("message", "no reason given")
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # its request has no answer, and goes into the next batch
    if not (isinstance(key, str) and KEY.fullmatch(key)):
        return  # nobody asked
    exchange = pending.get(key)  # None: it was asked with other settings, which may come again, and has been paid for
    if store.get(key) if exchange is None else exchange.outcome is not None or exchange.key != key:
        return  # it has been answered
    if code != 200:
        errors[key] = cut(service.clean(f"{short(code) if code else 'error'}: {message}"))
        if exchange and isinstance(code, int) and code < 500 and code not in PASSING:
            exchange.outcome = Failure(errors[key])
        return
    try:
        reply = Reply.from_completion(body, batched=True)
    except ValueError as error:
        errors[key] = str(error)
        return
    store.put(key, reply, exchange.question.metadata if exchange else {})
    if exchange:
        exchange.take(reply)


def _checked(kind: type[Kind], value: Any) -> Kind:
    try:
        return kind.model_validate(value)
    except ValidationError:
        raise StopError(f"the service answered with something that is no {kind.__name__[1:].lower()}: {short(value)}") from None


def _reasons(batch: _Batch) -> str:
    """Why a batch failed, in the service's words."""
    entries = batch.errors.get("data") if isinstance(batch.errors, dict) else None
    messages = [entry.get("message") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return cut("; ".join(cut(str(message)) for message in messages[:5] if message)) or "no reason given"
