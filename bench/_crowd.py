"""Clients that ask one after the other without pause: `python -S _crowd.py PORT CLIENTS SECONDS BODY`.

In a process of its own and with the library alone, so that the clients cost less than the service. `#` in the
text of BODY, a JSON file, becomes another number in every request.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

took: list[float] = []


async def one(number: int, port: int, end: float, body: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = 0
    while time.monotonic() < end:
        turn += 1
        data = body.replace("#", f"{number} {turn}").encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(data)}"
        start = time.monotonic()
        writer.write(f"POST /v1/score HTTP/1.1\r\nHost: x\r\n{kind}\r\n\r\n".encode() + data)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        size = next(line for line in lines if line.startswith("content-length:"))
        await reader.readexactly(int(size.split()[1]))
        if not lines[0].split()[1].startswith("200"):
            raise SystemExit(f"the service answered {lines[0]}")
        took.append(time.monotonic() - start)
    writer.close()


async def main() -> None:
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    body, start = Path(sys.argv[4]).read_text(), time.monotonic()
    await asyncio.gather(*(one(number, port, start + seconds, body) for number in range(clients)))
    json.dump([took, time.monotonic() - start], sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
