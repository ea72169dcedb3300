"""The last stage encodes in the background while nobody searches, until a budget is used up."""

import threading
from dataclasses import dataclass

from cascade.collecting.refining import Budget
from cascade.serving.engine import Engine

_SECONDS = 10.0
"""How often it is looked whether there is something new."""


@dataclass
class Progress:
    """What a run has done.

    Attributes:
        budget: how much it is to do.
        encoded: images that it has encoded.
        state: "working", "done", "stopped", or why it ended.
    """

    budget: Budget
    encoded: int = 0
    state: str = "working"


class Background:
    """Refines a collection on a thread, as often as it is started.

    Attributes:
        refining: how far the last run is; None: there was none.
    """

    def __init__(self, engine: Engine) -> None:
        """Make it; `start` starts it."""
        self.refining: Progress | None = None
        self._engine = engine
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._turn = threading.Lock()

    def start(self, budget: Budget) -> None:
        """Begin, in place of what is being done."""
        with self._turn:
            self._end()
            self._stop = threading.Event()
            self.refining = Progress(budget)
            run = _Run(self._engine, self.refining, self._stop)
            self._thread = threading.Thread(target=run, name="refining", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End after the batch that is being encoded, and wait for that."""
        with self._turn:
            self._end()

    def _end(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


class _Run:
    """One run, from its start to its end."""

    def __init__(self, engine: Engine, progress: Progress, stop: threading.Event) -> None:
        self._engine = engine
        self._progress = progress
        self._stop = stop

    def __call__(self) -> None:
        """Encode, and go on when there are new images."""
        try:
            self._work()
        except Exception as error:  # of any kind, as of a full disk: searching goes on
            self._progress.state = f"ended: {' '.join(str(error).split())}"

    def _work(self) -> None:
        collection, progress = self._engine.collection, self._progress
        while not self._stop.is_set():
            progress.state = "working"
            images = len(collection)
            self._engine.wait_until_idle(self._stop)
            collection.refine(progress.budget, self._stop, self._note)
            if self._stop.is_set():
                break
            progress.state = "done"
            if progress.budget.seconds is not None:
                return
            while len(collection) == images and not self._stop.wait(_SECONDS):
                pass
        if progress.state == "working":
            progress.state = "stopped"

    def _note(self, encoded: int) -> None:
        """Count a batch, and let searches go first."""
        self._progress.encoded += encoded
        self._engine.wait_until_idle(self._stop)
