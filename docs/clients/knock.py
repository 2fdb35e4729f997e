#!/usr/bin/env python3
"""Sends one authenticated knock, by Python's standard library alone.

    knock.py KEY_FILE HOST

KEY_FILE is what `knockgate key new` printed. Opens the first gate of the key for the address from which the packet arrives.
"""
import hashlib
import hmac
import socket
import struct
import sys
import time
import tomllib


def siphash_2_4_128(key, text):
    mask = (1 << 64) - 1

    def rotated(x, n):
        return (x << n | x >> 64 - n) & mask

    def rounds(v, count):
        a, b, c, d = v
        for _ in range(count):
            a = (a + b) & mask
            b = rotated(b, 13) ^ a
            a = rotated(a, 32)
            c = (c + d) & mask
            d = rotated(d, 16) ^ c
            a = (a + d) & mask
            d = rotated(d, 21) ^ a
            c = (c + b) & mask
            b = rotated(b, 17) ^ c
            c = rotated(c, 32)
        return [a, b, c, d]

    k0, k1 = struct.unpack("<QQ", key)
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D ^ 0xEE,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]
    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        v = rounds(v, 2)
        v[0] ^= word
    v[2] ^= 0xEE
    v = rounds(v, 4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    v = rounds(v, 4)
    return struct.pack("<QQ", first, v[0] ^ v[1] ^ v[2] ^ v[3])


def knock(key):
    root, host_id = bytes.fromhex(key["root"]), bytes.fromhex(key["host_id"])
    secret = hmac.digest(root, b"knockgate knock 1" + host_id, hashlib.sha256)
    # Time, slot, version, flags (observed address), gate, action (open), zero, seconds, addresses, port, zeros.
    body = struct.pack(
        ">QHBBIBBH4s16sH6x", time.time_ns(), key["slot"], 1, 4, 0, 1, 0, 0, b"", b"", 0
    )
    tag = hmac.digest(secret, body, hashlib.sha256)[:16]
    host_secret = bytes.fromhex(key["host_secret"])
    mask = b"".join(
        siphash_2_4_128(host_secret, tag + struct.pack("<Q", block)) for block in range(3)
    )
    return tag + bytes(a ^ b for a, b in zip(body, mask))


def main():
    with open(sys.argv[1], "rb") as file:
        key = tomllib.load(file)
    family, kind, protocol, _, address = socket.getaddrinfo(
        sys.argv[2], key["port"], type=socket.SOCK_DGRAM
    )[0]
    with socket.socket(family, kind, protocol) as out:
        out.sendto(knock(key), address)


if __name__ == "__main__":
    main()
