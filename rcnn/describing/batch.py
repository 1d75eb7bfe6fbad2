"""The same exchanges through the Batch API: half the price, an answer within a day (docs: 50,000 requests, 200 MB a file)."""

import io
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rcnn.describing.answers import Answers, Reply
from rcnn.describing.cost import Cost
from rcnn.describing.exchange import Exchange, Failure
from rcnn.describing.service import PASSING, Service, StopError, UnansweredError
from rcnn.files import write_json

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS = 20_000  # in one file; of at most 10 kB each, within 200 MB
TRIES = 3  # of one request, over several batches
OVER = ("completed", "failed", "expired", "cancelled")


def run(
    exchanges: list[Exchange], service: Service, store: Answers, cost: Cost, state: Path, poll: float
) -> Iterator[Exchange]:
    """Bring every exchange to its outcome by batches, and yield it then; each batch sends what the one before calls for.

    The file `state` remembers the batches under way, so that the same command, later, collects them.

    Raises:
        StopError: a batch failed, the service refuses it, or it would exceed the limit of the cost.
        UnansweredError: the service could not be reached; the same command continues.
    """
    tries = Counter()
    batches = json.loads(state.read_text())["batches"] if state.exists() else []
    while pending := {exchange.key: exchange for exchange in exchanges if exchange.outcome is None}:
        if not batches:
            waiting = list(pending.values())
            cost.check(waiting)
            for start in range(0, len(waiting), MOST_REQUESTS):
                batches.append(_submit(service, waiting[start : start + MOST_REQUESTS]))
                write_json(state, {"batches": batches})  # before anything else can go wrong: it is paid for
        errors, stopped = {}, []
        for identity in batches:
            batch = _wait(service, identity, poll)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                for line in service.call(lambda file=file: service.openai.files.content(file).text).splitlines():
                    _take(line, pending, store, errors, service)
            if batch.status in ("failed", "cancelled"):
                reasons = [reason.message or "" for reason in (batch.errors.data if batch.errors else None) or []]
                stopped.append(service.clean(f"batch {identity} {batch.status}: {'; '.join(reasons) or 'no reason given'}"))
        batches = []
        state.unlink(missing_ok=True)
        if stopped:
            raise StopError("; ".join(stopped))
        for key, exchange in pending.items():
            if exchange.outcome is None and exchange.key == key:
                tries[key] += 1
                if tries[key] == TRIES:
                    exchange.outcome = Failure(errors.get(key, "the batch has no answer"))
            if exchange.outcome is not None:
                yield exchange


def _submit(service: Service, exchanges: list[Exchange]) -> str:
    """Send the next requests of these exchanges; returns the batch's identity."""
    requests = [{"custom_id": e.key, "method": "POST", "url": ENDPOINT, "body": e.next_request()} for e in exchanges]
    lines = "".join(json.dumps(request) + "\n" for request in requests).encode()
    api = service.openai
    file = service.call(lambda: api.files.create(file=("requests.jsonl", io.BytesIO(lines)), purpose="batch"))
    return service.call(lambda: api.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h")).id


def _wait(service: Service, identity: str, poll: float) -> Any:
    """The batch when it is over."""
    try:
        while True:
            try:
                batch = service.call(lambda: service.openai.batches.retrieve(identity))
                if batch.status in OVER:
                    return batch
                counts = batch.request_counts
                news = batch.status + (f", {counts.completed} of {counts.total}" if counts else "")
            except UnansweredError as error:
                news = error  # the batch continues while the network is away
            print(f"batch {identity}: {news}", file=sys.stderr)
            time.sleep(poll)
    except KeyboardInterrupt:
        print(f"\nbatch {identity} continues at the service; the same command collects it", file=sys.stderr)
        raise


def _take(line: str, pending: dict[str, Exchange], store: Answers, errors: dict[str, str], service: Service) -> None:
    """Go on with one line of an output or error file; `errors` gets the reason where there is no answer."""
    try:
        record = json.loads(line)
        key, response = record["custom_id"], record.get("response") or {}
        code, body = response.get("status_code"), response.get("body")
        problem = record.get("error") or (body.get("error") if isinstance(body, dict) else None) or {}
        message = problem.get("message", "no reason given")
    except (ValueError, KeyError, TypeError, AttributeError):
        return  # its request has no answer, and goes into the next batch
    exchange = pending.get(key)
    if code != 200:
        errors[key] = service.clean(f"{code or 'error'}: {message}")
        if exchange and code is not None and code < 500 and code not in PASSING:
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
