"""When Python looks for garbage in circles: seldom, and not among what was there at the start.

Nearly all that a report leaves behind is freed by its reference count. Python's own pace, a look for every 700 new
objects, was a seventh of the work under load; and a full look goes through everything, botocore's model of AWS and
numba included: tens of milliseconds in which no report is judged.
"""

import gc
from typing import Final

NEW_MAX: Final = 50_000  # objects made and not freed between two looks among the youngest
YOUNG_LOOKS: Final = 20  # of those, before a look among the older ones
OLD_LOOKS: Final = 20


def settle() -> None:
    """To be called once, when what stays for good is there."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_MAX, YOUNG_LOOKS, OLD_LOOKS)
