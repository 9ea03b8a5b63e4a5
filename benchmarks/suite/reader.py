"""A reader that acknowledges and does nothing else: what the broker can do without Paqett.

    python -m suite.reader SOCKET CLIENT_ID USERNAME PASSWORD COUNTER

Subscribes to every device at QoS 1 with a clean session under the given client id, prints `ready`,
and keeps the number of messages so far in the file COUNTER, eight bytes, until it is ended.
"""

import mmap
import os
import struct
import sys

from paqett.local.packets import open_connection

_ack = struct.Struct("!BBH").pack


def _subscribe_packet(topic: str) -> bytes:
    name = topic.encode()
    body = b"\x00\x01" + len(name).to_bytes(2, "big") + name + b"\x01"
    return bytes((0x82, len(body))) + body


def _packets(data: bytes) -> tuple[list[bytes], int]:
    """The acknowledgements of the whole PUBLISH packets in `data`, and how many bytes they were."""
    acks, position, size = [], 0, len(data)
    while size - position >= 2:
        length, shift, start = 0, 0, position + 1
        while start < size:
            byte = data[start]
            length |= (byte & 0x7F) << shift
            start, shift = start + 1, shift + 7
            if byte < 128:
                break
        else:
            break
        end = start + length
        if end > size:
            break
        if data[position] & 0xF6 == 0x32:
            after = start + 2 + (data[start] << 8 | data[start + 1])
            acks.append(_ack(0x40, 2, data[after] << 8 | data[after + 1]))
        position = end
    return acks, position


def main() -> None:
    """Read until ended."""
    port, client_id, username, password, counter = sys.argv[1:]
    with open(counter, "r+b") as file:  # noqa: PTH123 - mmap wants a descriptor
        count = mmap.mmap(file.fileno(), 8)
    conn = open_connection(int(port), client_id, password, username=username)
    conn.sendall(_subscribe_packet("paqett/v1/+/#"))
    conn.recv(5)
    os.write(1, b"ready\n")
    seen, data = 0, b""
    while True:
        got = conn.recv(1 << 20)
        if not got:
            return
        data += got
        acks, used = _packets(data)
        data = data[used:]
        if acks:
            conn.sendall(b"".join(acks))
            seen += len(acks)
            count[:] = seen.to_bytes(8, "little")


if __name__ == "__main__":
    main()
