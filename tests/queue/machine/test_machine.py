"""The scripts keep their promises in whatever order they are called, and the machine would notice if they did not."""

import pytest
from hypothesis.errors import Flaky
from redis.exceptions import ResponseError

from tests.queue.machine.machine import THOROUGH, explore, routine
from tests.queue.machine.sabotage import AT_ONCE, IN_TIME
from tests.queue.machine.small import BOUNDS, edited

SABOTAGE = AT_ONCE | IN_TIME if THOROUGH else AT_ONCE


@pytest.mark.timeout(3_600)
def test_the_queue_keeps_its_promises_whatever_happens(redis_url: str) -> None:
    with edited(BOUNDS):
        explore(redis_url, THOROUGH or routine(100))


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("what", SABOTAGE)
def test_the_machine_notices_when(redis_url: str, what: str) -> None:
    noticed = (AssertionError, ResponseError, Flaky)  # the last one when it does not happen again in a replay
    with edited([*BOUNDS, SABOTAGE[what]]), pytest.raises(noticed):
        explore(redis_url, routine(100))
