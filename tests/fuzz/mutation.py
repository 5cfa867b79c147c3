"""A small mutating fuzzer, for machines without a coverage-guided one: seeded, and guided by outcomes.

An input whose outcome (read, or which refusal) has not been seen before joins the pool that later inputs are
made from; that takes mutations past one check after the other.
"""

import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from tests.fuzz.targets import Target, seeds

MAX_BYTES = 1 << 14
INPUT_SECONDS = 5.0
_MAX_POOL = 1000
_NUMBERS = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
]


class TooSlow(Exception):
    """One input took longer than `INPUT_SECONDS`."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow when the body takes longer; in the main thread only."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def mutated(data: bytes, pool: Sequence[bytes], tokens: Sequence[bytes], draw: random.Random) -> bytes:
    """The data with one to six random changes."""
    content = bytearray(data)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 6])):
        _change(content, pool, tokens, draw)
    return bytes(content[:MAX_BYTES])


def _change(content: bytearray, pool: Sequence[bytes], tokens: Sequence[bytes], draw: random.Random) -> None:
    at = draw.randrange(len(content) + 1)
    length = min(draw.choice([1, 1, 2, 4, 8, 32, 200]), len(content) - at)
    kind = draw.randrange(8)
    if kind == 0 and at < len(content):
        content[at] ^= 1 << draw.randrange(8)
    elif kind == 1:
        content[at : at + 1] = bytes([draw.randrange(256)])
    elif kind == 2:
        del content[at : at + length]
    elif kind == 3:
        content[at:at] = bytes(content[at : at + length]) * draw.choice([1, 1, 2, 20])
    elif kind == 4:
        size = draw.choice([1, 2, 4, 8])
        number = draw.choice(_NUMBERS) % 256**size
        content[at : at + size] = number.to_bytes(size, draw.choice(["little", "big"]))  # type: ignore[arg-type]
    elif kind == 5:
        other = draw.choice(pool)
        start = draw.randrange(len(other) + 1)
        content[at : at + length] = other[start : start + draw.choice([4, 16, 64, 400])]
    elif kind == 6 and tokens:
        content[at : at + draw.choice([0, 0, length])] = draw.choice(tokens)
    else:
        numbers = [match.span() for match in re.finditer(rb"-?\d+", bytes(content))]
        if numbers:
            start, stop = draw.choice(numbers)
            content[start:stop] = b"%d" % draw.choice([-1, 0, 1, 255, 2**31, 2**53 + 1, 2**63, 2**64, 10**30])


def inputs(
    name: str,
    target: Target,
    *,
    seed: int,
    num_runs: int | None = None,
    seconds: float | None = None,
    before: Callable[[bytes], object] = lambda data: None,
) -> Iterator[tuple[bytes, str]]:
    """Run the corpus and then mutations of it; every input that was run, with its outcome.

    Args:
        name: of the target.
        target: what to run.
        seed: of the mutations.
        num_runs: mutations to run; none: as many as the time allows.
        seconds: how long to go on.
        before: is given every input before it is run.

    Raises:
        TooSlow: an input took more than `INPUT_SECONDS`.
        whatever the target must not raise; a note of the exception holds the input.
    """
    draw = random.Random(f"{seed} {name}")  # noqa: S311  not for secrets
    pool = seeds(name)
    outcomes: set[str] = set()
    deadline = None if seconds is None else time.monotonic() + seconds
    queue, count = list(pool), 0
    while queue or (
        (num_runs is None or count < num_runs) and (deadline is None or time.monotonic() < deadline)
    ):
        if queue:
            data = queue.pop()
        else:
            data, count = mutated(draw.choice(pool), pool, target.tokens, draw), count + 1
        before(data)
        outcome = run_one(target, data)
        signature = re.sub(r"\d+", "0", outcome)
        if signature not in outcomes and len(pool) < _MAX_POOL:
            outcomes.add(signature)
            pool.append(data)
        yield data, outcome


def run_one(target: Target, data: bytes) -> str:
    """Run one input under the time limit; an error that was not declared carries the input as a note."""
    try:
        with time_limit(INPUT_SECONDS):
            return target(data)
    except Exception as error:
        error.add_note(f"input: {data!r}")
        raise
