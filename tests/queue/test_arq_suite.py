"""arq's own tests, whole, on our worker: what is documented of arq stays true of `LeaseWorker`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.stack.directory import DataDirectory
from ops.stack.valkey import Valkey, start_valkey
from tests.queue.arq_suite import suite

OURS, IDLER = "workers.queue.worker:LeaseWorker", "idler:Idler"
PASSED, SKIPPED = 172, 2
"""What arq's own worker makes of the pinned release."""
SECOND_GOES = 10
"""Its tests measure time: on a busy machine so many may need to run again, alone."""


@pytest.fixture
def server(private_directory: DataDirectory) -> Iterator[Valkey]:
    """A server of its own: the suite flushes it."""
    valkey = start_valkey(private_directory)
    yield valkey
    valkey.child.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    suite.unpack(suite.fetch(), tmp_path)
    return tmp_path


def test_our_worker_passes_every_test_that_arqs_own_passes(folder: Path, server: Valkey) -> None:
    first = suite.run(folder, server.port, OURS)
    failed = first.failed
    if 0 < len(failed) <= SECOND_GOES:
        failed = suite.run(folder, server.port, OURS, sorted(failed)).failed
    assert not failed, first.output
    assert (len(first.passed | first.failed), len(first.skipped)) == (PASSED, SKIPPED)


def test_the_suite_notices_a_worker_that_does_nothing(folder: Path, server: Valkey) -> None:
    idle = suite.run(folder, server.port, IDLER, ["tests/test_worker.py", "-k", "retry or remain or serializers"])
    assert len(idle.failed) > len(idle.passed) > 0, idle.output
