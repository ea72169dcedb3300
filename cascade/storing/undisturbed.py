"""Work that an interrupt doesn't cut off: it ends first, and then the interrupt is raised.

A write of a Lance table goes on in threads of its own, whatever happens to who waits for it. Who
stopped waiting would release the lock on the tables before the write has come to its end.
"""

import threading
from collections.abc import Callable

_SECONDS = 0.05


def undisturbed(work: Callable[[], object]) -> None:
    """Do work to its end; an exception of a signal handler is raised after it.

    Raises:
        BaseException: what disturbed it, or whatever the work raised.
    """
    job = _Job(work)
    disturbed: BaseException | None = None
    while True:
        try:
            while not job.done.is_set():
                job.begin()
                job.done.wait(_SECONDS)
            break
        except BaseException as error:  # only signal handlers raise here
            disturbed = error
    if disturbed is not None:
        raise disturbed
    if job.failed is not None:
        raise job.failed


class _Job:
    """Work that is done once, however often it is begun, in a thread that hears no signals."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.done = threading.Event()
        self.failed: BaseException | None = None
        self._work = work
        self._begun = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start a thread for it; what an interrupt left of an earlier start makes no difference."""
        if not self._begun:
            threading.Thread(target=self._run).start()

    def _run(self) -> None:
        with self._lock:
            if self._begun:
                return
            self._begun = True
        try:
            self._work()
        except BaseException as error:
            self.failed = error
        finally:
            self.done.set()
