"""The same exchanges through the Batch API: half the price, an answer within a day (docs: 50,000 requests, 200 MB a file)."""

import io
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rcnn.describing.answers import Answers, Reply
from rcnn.describing.exchange import Exchange
from rcnn.describing.service import PASSING, Service, StopError, UnansweredError
from rcnn.files import write_json

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
TRIES = 3  # of one request, over several batches
OVER = ("completed", "failed", "expired", "cancelled")


def run(
    exchanges: list[Exchange],
    service: Service,
    store: Answers,
    refuse: Callable[[list[Exchange]], str | None],
    done: Callable[[Exchange], None],
    state: Path,
    poll: float = 30.0,
    tell: Callable[[str], None] = print,
) -> None:
    """Bring every exchange to its outcome by batches; each sends what the answers of the one before call for.

    Args:
        exchanges, service, store, done: as for `live.run`.
        refuse: why the next requests of these exchanges may not be sent, or None.
        state: file that remembers the batches under way, so that the same command, later, collects them.
        poll: seconds between looks.
        tell: called with a line on the batch under way.

    Raises:
        StopError: the service refuses a batch, or `refuse` said why.
    """
    tries = Counter()
    batches = json.loads(state.read_text())["batches"] if state.exists() else []
    while pending := {exchange.key: exchange for exchange in exchanges if exchange.outcome is None}:
        if not batches:
            if reason := refuse(list(pending.values())):
                raise StopError(reason)
            for lines in _files(pending):
                batches.append(_submit(service, lines))
                write_json(state, {"batches": batches})  # before anything else can go wrong: it is paid for
        errors, stopped = {}, []
        for identity in batches:
            errors |= _collect(service, identity, pending, store, poll, tell, stopped)
        batches = []
        state.unlink(missing_ok=True)
        if stopped:
            raise StopError("; ".join(stopped))
        for key, exchange in pending.items():
            if store.get(key) is None:
                why, again = errors.get(key, ("the batch has no answer", True))
                tries[key] += 1
                if not again or tries[key] == TRIES:
                    exchange.fail(why)
            exchange.follow(store)
            if exchange.outcome is not None:
                done(exchange)


def _files(pending: dict[str, Exchange]) -> Iterator[bytes]:
    """Input files within the service's limits."""
    lines, size = [], 0
    for key, exchange in pending.items():
        request = {"custom_id": key, "method": "POST", "url": ENDPOINT, "body": exchange.next_request()}
        line = json.dumps(request).encode() + b"\n"
        if lines and (len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield b"".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield b"".join(lines)


def _submit(service: Service, lines: bytes) -> str:
    """Send one input file; returns the batch's identity."""
    api = service.openai
    file = service.call(lambda: api.files.create(file=("requests.jsonl", io.BytesIO(lines)), purpose="batch"))
    return service.call(lambda: api.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")).id


def _look(service: Service, identity: str, tell: Callable[[str], None]) -> Any:
    """The batch as it is now, or None if the service cannot be reached."""
    try:
        return service.call(lambda: service.openai.batches.retrieve(identity))
    except UnansweredError as error:
        tell(f"batch {identity}: {error}")  # the batch continues while the network is away
        return None


def _collect(
    service: Service,
    identity: str,
    pending: dict[str, Exchange],
    store: Answers,
    poll: float,
    tell: Callable[[str], None],
    stopped: list[str],
) -> dict[str, tuple[str, bool]]:
    """Wait for a batch and store its answers; returns key -> (why there is none, whether to try again).

    The answers of a failed or cancelled batch are stored too, and `stopped` gets a line on it.
    """
    try:
        while (batch := _look(service, identity, tell)) is None or batch.status not in OVER:
            if batch:
                counts = batch.request_counts
                tell(f"batch {identity}: {batch.status}" + (f", {counts.completed} of {counts.total}" if counts else ""))
            time.sleep(poll)
    except KeyboardInterrupt:
        print(f"\nbatch {identity} continues at the service; the same command collects it", file=sys.stderr)
        raise
    if batch.status in ("failed", "cancelled"):
        reasons = [reason.message or "" for reason in (batch.errors.data if batch.errors else None) or []]
        stopped.append(service.clean(f"batch {identity} {batch.status}: {'; '.join(reasons) or 'no reason given'}"))
    errors = {}
    for file in filter(None, (batch.output_file_id, batch.error_file_id)):
        for line in service.call(lambda file=file: service.openai.files.content(file).text).splitlines():
            _take(line, pending, store, errors, service)
    return errors


def _take(
    line: str, pending: dict[str, Exchange], store: Answers, errors: dict[str, tuple[str, bool]], service: Service
) -> None:
    """Store one line of an output or error file."""
    try:
        record = json.loads(line)
        key, response = record["custom_id"], record.get("response") or {}
        code, body = response.get("status_code"), response.get("body")
        problem = record.get("error") or (body.get("error") if isinstance(body, dict) else None) or {}
        message = problem.get("message", "no reason given")
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # its request will have no answer, and goes into the next batch
    if code == 200:
        try:
            reply = replace(Reply.from_completion(body), batched=True)
            store.put(key, reply, pending[key].question.metadata if key in pending else {})
        except ValueError as error:
            errors[key] = (str(error), True)
        return
    again = code is None or code >= 500 or code in PASSING
    errors[key] = (service.clean(f"{code or 'error'}: {message}"), again)
