"""Exchanges with a service while the command waits, several at a time."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from rcnn.describing.answers import Answers
from rcnn.describing.exchange import Exchange, Failure
from rcnn.describing.service import InterruptedRunError, Service, StopError, UnansweredError

FAILURES_IN_A_ROW = 10  # then the service is taken to be down


def run(
    exchanges: list[Exchange],
    service: Service,
    store: Answers,
    refuse: Callable[[], str | None],
    done: Callable[[Exchange], None],
    concurrency: int = 8,
) -> None:
    """Bring every exchange to its outcome.

    On an interrupt, or when `refuse` says why, nothing new is sent, and requests under way are waited for and stored.

    Args:
        exchanges: those that await a reply.
        service: answers the requests.
        store: keeps the answers.
        refuse: why no further request may be sent, or None; called before each.
        done: called with each exchange that has its outcome, by one thread at a time.
        concurrency: threads.

    Raises:
        StopError: the service refuses all requests, or `refuse` said why.
        KeyboardInterrupt: after the requests under way; a second one does not wait.
    """
    queue, lock, errors = iter(exchanges), threading.Lock(), []
    failing = set()  # classes with a failure since the last answer; one class may well be refused throughout

    def finish(exchange):
        while exchange.outcome is None:
            with lock:
                if reason := refuse():
                    raise StopError(reason)
            try:
                reply = service.complete(exchange.next_request())
            except UnansweredError as error:
                return exchange.fail(str(error))
            store.put(exchange.key, reply, exchange.question.metadata)
            exchange.follow(store)

    def work():
        nonlocal failing
        try:
            while not service.halt.is_set():
                with lock:
                    exchange = next(queue, None)
                if exchange is None:
                    return
                finish(exchange)
                with lock:
                    failed = isinstance(exchange.outcome, Failure)
                    failing = failing | {exchange.question.name} if failed else set()
                    done(exchange)
                    if len(failing) == FAILURES_IN_A_ROW:
                        raise StopError(f"{len(failing)} classes in a row failed; the last: {exchange.outcome.why}")
        except InterruptedRunError:
            pass
        except BaseException as error:
            errors.append(error)
            service.halt.set()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(concurrency)]
    with _first_interrupt_sets(service.halt) as interrupted:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # with a limit, so that an interrupt is seen at once
    if interrupted:
        raise KeyboardInterrupt
    if errors:
        raise errors[0]


@contextlib.contextmanager
def _first_interrupt_sets(halt: threading.Event) -> Iterator[list]:
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
