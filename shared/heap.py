"""The garbage collector of a process that serves until it is stopped: workers and the ingress, from their start on."""

import gc

_YOUNG_OBJECTS, _YOUNG_RUNS = 20_000, 50


def settle_heap() -> None:
    """For a process whose only work this is, once everything is loaded.

    Python's garbage collector looks at all of it again and again, a fifth of the worker's time: what is there now stays
    for good and is left out, and what comes and goes is looked at less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, _YOUNG_RUNS, _YOUNG_RUNS)
