"""The last stage encodes in the background while nobody searches, until a budget is used up."""

import threading
from dataclasses import dataclass

from cascade.collecting.refining import Budget
from cascade.serving.engine import Engine

_SECONDS = 10.0
"""How often it is looked whether there is something new."""


@dataclass
class Progress:
    """What the background has done: images encoded, and whether it is at work, done or ended."""

    encoded: int = 0
    state: str = "working"


class Background:
    """A thread that refines a collection.

    Attributes:
        refining: how far it is.
    """

    def __init__(self, engine: Engine, budget: Budget) -> None:
        """Make it; `start` starts it."""
        self.refining = Progress()
        self._engine = engine
        self._budget = budget
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refining", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the batch that is being encoded, and wait for that."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        collection = self._engine.collection
        try:
            while not self._stop.is_set():
                self.refining.state = "working"
                images = len(collection)
                self._engine.wait_until_idle(self._stop)
                collection.refine(self._budget, self._stop, self._note)
                self.refining.state = "done"
                if self._budget.seconds is not None:
                    return
                while len(collection) == images and not self._stop.wait(_SECONDS):
                    pass
        except Exception as error:  # of any kind, as of a full disk: searching goes on
            self.refining.state = f"ended: {' '.join(str(error).split())}"

    def _note(self, encoded: int) -> None:
        """Count a batch, and let searches go first."""
        self.refining.encoded += encoded
        self._engine.wait_until_idle(self._stop)
