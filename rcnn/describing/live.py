"""Exchanges with a service while the command waits, several at a time."""

import signal
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue

from rcnn.describing.answers import Answers
from rcnn.describing.cost import Cost
from rcnn.describing.exchange import Exchange, Failure
from rcnn.describing.service import InterruptedRunError, Service, StopError, UnansweredError

FAILURES_IN_A_ROW = 10  # then the service is taken to be down


def run(exchanges: list[Exchange], service: Service, store: Answers, cost: Cost, concurrency: int) -> Iterator[Exchange]:
    """Bring every exchange to its outcome, and yield it then.

    On an interrupt or an error nothing new is sent, and requests under way are waited for and stored.

    Raises:
        StopError: the service refuses all requests, or the limit of the cost is reached.
        KeyboardInterrupt: after the requests under way; a second one does not wait.
    """
    pending, ended, lock, errors = iter(exchanges), SimpleQueue(), threading.Lock(), []
    threads = min(concurrency, len(exchanges))
    failing = set()  # classes with a failure since the last answer; one class may well be refused throughout

    def stop(error):
        errors.append(error)
        service.halt.set()

    def interrupt(*_):
        # the first one raises nothing: it could come at any point, even between starting a thread and knowing of it
        if KeyboardInterrupt in errors:
            raise KeyboardInterrupt
        stop(KeyboardInterrupt)
        print("\nfinishing the requests under way; press again to abandon them", file=sys.stderr)

    def work():
        try:
            while not service.halt.is_set():
                with lock:
                    exchange = next(pending, None)
                if exchange is None:
                    break
                _finish(exchange, service, store, cost)
                ended.put(exchange)
        except InterruptedRunError:
            pass
        except BaseException as error:
            stop(error)
        finally:
            ended.put(None)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        for _ in range(threads):
            threading.Thread(target=work, daemon=True).start()
        for _ in range(threads):  # each thread ends with None
            for exchange in iter(ended.get, None):
                failing = failing | {exchange.question.name} if isinstance(exchange.outcome, Failure) else set()
                if len(failing) == FAILURES_IN_A_ROW:
                    stop(StopError(f"{len(failing)} classes in a row failed; the last: {exchange.outcome.why}"))
                yield exchange
    finally:
        signal.signal(signal.SIGINT, before)
    if errors:
        raise errors[0]


def _finish(exchange: Exchange, service: Service, store: Answers, cost: Cost) -> None:
    while exchange.outcome is None:
        cost.check()
        try:
            reply = service.complete(exchange.next_request())
        except UnansweredError as error:
            exchange.outcome = Failure(str(error))
        else:
            store.put(exchange.key, reply, exchange.question.metadata)
            exchange.take(reply)
