"""A worker that does nothing: arq's tests must notice it."""

from workers.queue.worker import LeaseWorker


class Idler(LeaseWorker):
    """Starts, and is done."""

    async def main(self) -> None:
        self._open()
