"""The same requests through the Batch API: half the price, an answer within a day (docs: 50,000 requests, 200 MB a file)."""

import io
import json
import time
from collections import Counter
from dataclasses import replace

from rcnn.describing.answers import Reply
from rcnn.describing.service import PASSING, StopError, UnansweredError
from rcnn.describing.tasks import Failure, advance
from rcnn.files import write_json

ENDPOINT = "/v1/chat/completions"
MOST_REQUESTS, MOST_BYTES = 50_000, 200_000_000
TRIES = 3  # of one request, over several batches
OVER = ("completed", "failed", "expired", "cancelled")


def run(tasks, service, store, client, state, allowed, done, poll, tell):
    """Bring every task to its end by batches; each wave sends what the answers of the one before call for.

    Args:
        tasks, service, store, client, done: as for `service.run`.
        state: path of the file that remembers the batches under way, so that the same command, later, collects them.
        allowed: (list of (task, body)) -> None or a reason not to send them.
        poll: seconds between looks.
        tell: (line) -> None, for progress.

    Raises:
        StopError: the service refuses a batch, or `allowed` said no.
    """
    tries, open_tasks = Counter(), list(tasks)
    batches = json.loads(state.read_text())["batches"] if state.exists() else []
    while open_tasks:
        pending, still = {}, []
        for task in open_tasks:
            step, keys = advance(task, service, store)
            if isinstance(step, dict) and tries[keys[-1]] < TRIES:
                pending[keys[-1]] = (task, step)
                still.append(task)
            elif not isinstance(step, dict):
                done(task, step)
        open_tasks = still
        if not pending:
            break
        if not batches:
            if reason := allowed(list(pending.values())):
                raise StopError(reason)
            for lines in _files(pending):
                batches.append(_submit(client, lines))
                write_json(state, {"batches": batches})  # before anything else can go wrong: it is paid for
        errors, ended_badly = {}, []
        for identity in batches:
            errors |= _collect(client, identity, pending, store, poll, tell, ended_badly)
        batches = []
        state.unlink(missing_ok=True)
        if ended_badly:
            raise StopError("; ".join(ended_badly))
        for key, (task, _) in pending.items():
            if store.get(key) is None:
                why, again = errors.get(key, ("the batch has no answer", True))
                tries[key] += 1
                if not again or tries[key] == TRIES:
                    tries[key] = TRIES
                    done(task, Failure(why))


def _files(pending):
    """Bytes of input files within the service's limits."""
    lines, size = [], 0
    for key, (_, request) in pending.items():
        line = json.dumps({"custom_id": key, "method": "POST", "url": ENDPOINT, "body": request}).encode() + b"\n"
        if lines and (len(lines) == MOST_REQUESTS or size + len(line) > MOST_BYTES):
            yield b"".join(lines)
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    yield b"".join(lines)


def _submit(client, lines):
    api = client.openai
    file = client.call(lambda: api.files.create(file=("requests.jsonl", io.BytesIO(lines)), purpose="batch"))
    batch = client.call(lambda: api.batches.create(input_file_id=file.id, endpoint=ENDPOINT, completion_window="24h"))
    return batch.id


def _look(client, identity, tell):
    """The batch as it is now, or None if the service cannot be reached."""
    try:
        return client.call(lambda: client.openai.batches.retrieve(identity))
    except UnansweredError as error:
        tell(f"batch {identity}: {error}")  # a day is long, and networks fail; the batch goes on
        return None


def _collect(client, identity, pending, store, poll, tell, ended_badly):
    """Wait for a batch and store its answers; returns key -> (why there is none, whether to try again).

    What there is of a failed or cancelled batch is stored too, and `ended_badly` gets a line on it.
    """
    api = client.openai
    try:
        while (batch := _look(client, identity, tell)) is None or batch.status not in OVER:
            if batch:
                counts = batch.request_counts
                tell(f"batch {identity}: {batch.status}" + (f", {counts.completed} of {counts.total}" if counts else ""))
            time.sleep(poll)
    except KeyboardInterrupt:
        tell(f"batch {identity} goes on at the service; the same command collects it")
        raise
    if batch.status in ("failed", "cancelled"):
        reasons = [reason.message or "" for reason in (batch.errors.data if batch.errors else None) or []]
        ended_badly.append(client.clean(f"batch {identity} {batch.status}: {'; '.join(reasons) or 'no reason given'}"))
    errors = {}
    for file in filter(None, (batch.output_file_id, batch.error_file_id)):
        for line in client.call(lambda file=file: api.files.content(file).text).splitlines():
            _take(line, pending, store, errors, client)
    return errors


def _take(line, pending, store, errors, client):
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
            store.put(
                key, replace(Reply.from_completion(body), batched=True), **(pending[key][0].about if key in pending else {})
            )
        except ValueError as error:
            errors[key] = (str(error), True)
        return
    again = code is None or code >= 500 or code in PASSING
    errors[key] = (client.clean(f"{code or 'error'}: {message}"), again)
