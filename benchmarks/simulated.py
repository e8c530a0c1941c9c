"""Simulated generation servers on loopback, in one process, that note when each generation begins and ends.

    python benchmarks/simulated.py --endpoints 4 --seconds 0.2 --result-bytes 1048576

Prints one line of JSON with its ports as soon as it listens. ``GET /times`` of the first endpoint returns, for every
endpoint, the list of [begin, end] of its generations (seconds of one clock); ``GET /asked`` how often each image was
sent to it; ``GET /cpu`` the seconds of CPU that all of them have used. One endpoint generates one prompt at a time;
others wait in the order they came. The result is a valid PLY; with ``--unique`` no two are equal. ``GET /image/NAME``
of any endpoint is a small image that arrives after the delay.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

_CHUNK = 64 * 1024
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf50"
    "0f000386018056e7e2c70000000049454e44ae426082"
)


def ply_of(size_bytes: int) -> bytes:
    """Return a binary PLY of exactly ``size_bytes`` (at least 200)."""
    for digits in range(1, 12):
        header = (
            f"ply\nformat binary_little_endian 1.0\nelement vertex {'0' * digits}\nproperty uchar x\nend_header\n"
        )
        count = size_bytes - len(header)
        if len(str(count)) == digits:
            return header.replace("0" * digits, str(count), 1).encode() + bytes(count)
    raise ValueError(f"no PLY has {size_bytes} bytes")


class Endpoint:
    """One server: its queue, its generations and how it answers."""

    def __init__(
        self, options: argparse.Namespace, seconds: float, result: bytes, all_times: list[list[list[float]]]
    ) -> None:
        self._options = options
        self._seconds = seconds
        self._result = result
        self._all_times = all_times
        self._asked: Counter[str] = Counter()
        self._gpu = asyncio.Semaphore(1)
        self.times: list[list[float]] = []
        all_times.append(self.times)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                sent = await reader.readexactly(int(length.group(1)) if length else 0)
                await self._answer(head.split(b" ", 2)[1].decode(), sent, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, sent: bytes, writer: asyncio.StreamWriter) -> None:
        if path == "/generate":
            name = re.search(rb'filename="([^"]*)"', sent[:1000])
            self._asked[name.group(1).decode() if name else ""] += 1
            async with self._gpu:
                begin = time.monotonic()
                if self._seconds:
                    varies = random.uniform(-self._options.jitter, self._options.jitter)
                    await asyncio.sleep(self._seconds * (1 + varies))
                self.times.append([begin, time.monotonic()])
            await asyncio.sleep(0)  # whoever waits begins before this one's result is written
            serial = f"{self._asked.total():08d}".encode() + os.urandom(8) if self._options.unique else b""
            result = self._result[: len(self._result) - len(serial)] + serial
            await self._send(writer, result, self._options.rate)
        elif path == "/times":
            await self._send(writer, json.dumps(self._all_times).encode(), 0)
        elif path == "/cpu":
            await self._send(writer, json.dumps(time.process_time()).encode(), 0)
        elif path == "/asked":
            await self._send(writer, json.dumps(self._asked).encode(), 0)
        elif path.startswith("/image/"):
            await asyncio.sleep(self._options.image_delay)
            await self._send(writer, _PIXEL, 0)
        else:
            await self._send(writer, b'{"status": "healthy"}', 0)

    async def _send(self, writer: asyncio.StreamWriter, body: bytes, rate: float) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        begun = time.monotonic()
        for start in range(0, len(body), _CHUNK):
            writer.write(body[start : start + _CHUNK])
            await writer.drain()
            if rate:
                await asyncio.sleep(max(0.0, begun + (start + _CHUNK) / rate - time.monotonic()))


@contextmanager
def servers(options: list[str], endpoints: int = 4) -> Iterator[list[str]]:
    """Run simulated servers in a process of their own; yield their URLs."""
    command = [sys.executable, __file__, "--endpoints", str(endpoints), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield [f"http://127.0.0.1:{port}" for port in json.loads(process.stdout.readline())]
        finally:
            process.terminate()


async def main(options: argparse.Namespace) -> None:
    result = ply_of(options.result_bytes)
    all_times: list[list[list[float]]] = []
    servers = [
        await asyncio.start_server(
            partial(Endpoint(options, seconds, result, all_times).serve), "127.0.0.1", 0, limit=2**20
        )
        for seconds in [options.seconds] * (options.endpoints - 1) + [options.seconds * options.slow]
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.2, help="one generation")
    parser.add_argument("--jitter", type=float, default=0, help="0.1: each generation takes up to 10 %% more or less")
    parser.add_argument("--slow", type=float, default=1, help="the last endpoint is so many times slower")
    parser.add_argument("--result-bytes", type=int, default=2**20)
    parser.add_argument("--unique", action="store_true", help="let no two results be equal")
    parser.add_argument("--rate", type=float, default=0, help="bytes a second of each result's stream; 0: unlimited")
    parser.add_argument("--image-delay", type=float, default=0, help="seconds until an image arrives")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse()))
