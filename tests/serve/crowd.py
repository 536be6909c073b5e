"""Clients that ask without pause, in a process of their own: `python crowd.py PORT CLIENTS SECONDS`.

With the library alone and on plain streams, so that the clients cost less than the service.
"""

import asyncio
import json
import sys
import time

got: list[tuple[int, float, str, float | None]] = []


async def one(number: int, port: int, end: float) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = 0
    while time.monotonic() < end:
        turn += 1
        body = json.dumps({"text": f"{number} {turn}"}).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
        head = f"POST /v1/score HTTP/1.1\r\nHost: x\r\n{kind}"
        start = time.monotonic()
        writer.write(f"{head}\r\n\r\n".encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        answer = json.loads(await reader.readexactly(int(headers["content-length"])))
        code, took = int(lines[0].split()[1]), time.monotonic() - start
        got.append((code, took, headers.get("retry-after", ""), answer.get("timing_ms", {}).get("total")))
        if code == 429:
            # Less than it asks for: the point is the load.
            await asyncio.sleep(0.1)
    writer.close()


async def main() -> None:
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    end = time.monotonic() + seconds
    await asyncio.gather(*(one(number, port, end) for number in range(clients)))
    json.dump(got, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
