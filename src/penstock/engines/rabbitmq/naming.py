"""The names of what we declare on the server, and the paths of delayed tasks."""

from __future__ import annotations

import math
import re
from urllib.parse import quote, unquote

from penstock.errors import ConfigError
from penstock.message import HIGHEST, LOWEST, NORMAL

RESERVED = re.compile(r"\.(p\d|dead|lanes)\Z")
LONGEST = 150
"""Bytes of a queue's name on the server: with the path of a delay before it, a routing key has 255."""
NEWS = "penstock.news"
"""The fanout exchange on which processes tell each other of new lanes, and workers of themselves."""
DUE = "penstock.delay.due"
TICK = 1 / 64
"""Seconds: the shortest wait queue's time, and the precision of delays."""
LEVELS = 28
"""Wait queues, each for twice the time of the one before: the last for 24 days. What is delayed for longer goes
round again."""
PRIORITIES = tuple(range(HIGHEST, LOWEST - 1, -1))


def queue_name(queue: str, namespace: str) -> str:
    """The name of the queue of normal priority. The default namespace's queues are called as they are, so that other
    programs find them. Raises `ConfigError`."""
    if RESERVED.search(queue):
        raise ConfigError(f"queue {queue!r}: RabbitMQ queues of such endings are ours; choose another name")
    name = queue
    if namespace or "/" in queue:
        name = f"{quote(namespace, safe='')}/{queue}"
    if len(word(name).encode()) > LONGEST:
        raise ConfigError(f"queue {name!r}: over {LONGEST} bytes, which a RabbitMQ routing key has no room for")
    return name


def split_name(name: str) -> tuple[str, str]:
    """Queue and namespace of a queue's name."""
    namespace, slash, queue = name.partition("/")
    return (queue, unquote(namespace)) if slash else (name, "")


def lane_name(name: str, priority: int) -> str:
    """The queue of one priority."""
    return name if priority == NORMAL else f"{name}.p{priority}"


def split_lane(lane: str) -> tuple[str, int]:
    """The queue's name and the priority of a lane."""
    if RESERVED.search(lane) and lane[-2] == "p":
        return lane[:-3], int(lane[-1])
    return lane, NORMAL


def marker_name(name: str) -> str:
    """A queue that is there once lanes of other priorities are, so that a worker asks for one name instead of nine."""
    return f"{name}.lanes"


def dead_name(name: str) -> str:
    return f"{name}.dead"


def word(name: str) -> str:
    """`name` as a single word of a routing key, which no pattern takes for something else."""
    return name.replace("%", "%25").replace(".", "%2E").replace("*", "%2A").replace("#", "%23")


def delay_time(level: int) -> int:
    """Milliseconds, rounded up: nothing may come early."""
    return math.ceil(TICK * 1000 * (1 << level))


def delay_queue(level: int) -> str:
    """Named by its time, which cannot be changed once it is there; its exchange is named the same."""
    return f"penstock.delay.{delay_time(level)}ms"


def delay_path(seconds: float, lane: str) -> tuple[int, str]:
    """The first level of a message that is due in `seconds`, and its routing key: a digit for each level, the longest
    first, and the lane that it goes to then."""
    ticks = math.ceil(min(max(1.0, seconds / TICK), (1 << LEVELS) - 1))
    top = ticks.bit_length() - 1
    digits = ".".join(format(ticks, f"0{LEVELS}b"))
    return top, f"{digits}.{word(lane)}"


def level_pattern(level: int, digit: int) -> str:
    """The routing keys with this digit at this level."""
    before = "*." * (LEVELS - 1 - level)
    return f"{before}{digit}.#"
