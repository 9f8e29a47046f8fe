"""Ids: UUIDv7 in order, never the same twice, not even in a child of this process."""

import subprocess
import sys
import time
from uuid import RFC_4122, UUID

from shared.ids import random_hex, uuid7

CHILD = """
import os
from shared.ids import random_hex, uuid7
uuid7(), random_hex(1)
child = os.fork()
os.write(1, f"{uuid7()[18:]} {random_hex(24)}\\n".encode())
if child:
    os.waitpid(child, 0)
"""


def test_ids_are_uuids_of_version_7_that_rise() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = [uuid7() for _ in range(3_000)]
    after_ms = time.time_ns() // 1_000_000 + len(made) // 4_096 + 1
    assert made == sorted(set(made))
    for text in made:
        found = UUID(text)
        assert (str(found), found.version, found.variant) == (text, 7, RFC_4122)
        assert before_ms <= found.int >> 80 <= after_ms


def test_every_random_bit_of_an_id_is_drawn() -> None:
    ones, zeros = 0, (1 << 62) - 1
    for _ in range(2_000):
        drawn = UUID(uuid7()).int & (1 << 62) - 1
        ones, zeros = ones | drawn, zeros & drawn
    assert (ones, zeros) == ((1 << 62) - 1, 0)


def test_random_text_has_the_length_asked_and_does_not_repeat() -> None:
    made = [random_hex(24) for _ in range(500)]
    assert len(set(made)) == 500
    assert all(len(text) == 48 and bytes.fromhex(text) for text in made)


def test_a_forked_child_draws_other_bits_than_its_parent() -> None:
    ran = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True, timeout=300)
    one, other = (line.split() for line in ran.stdout.splitlines())
    assert one[0] != other[0]
    assert one[1] != other[1]
