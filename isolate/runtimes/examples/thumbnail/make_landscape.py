"""Paints landscape.png, 1600 x 1000: hills before a morning sky, and a lake.

Made for this project and under its licence. The picture is committed, so that nobody
needs to run this: `python3 make_landscape.py > landscape.png`. Standard library only.
"""

import math
import struct
import sys
import zlib

WIDTH, HEIGHT = 1600, 1000
SHORE = 700
SUN = (1090, 330)
# Nearer ranges are darker and rougher: (base line, height, roughness, colour).
RANGES = (
    (470, 90, 1.0, (148, 152, 178)),
    (540, 110, 1.6, (108, 118, 148)),
    (610, 95, 2.3, (70, 88, 112)),
    (670, 70, 3.1, (38, 58, 70)),
)


def ridge(index, x):
    base, height, roughness, _ = RANGES[index]
    phase = 1.7 * index + 0.6
    waves = ((0.0031, 0.5), (0.0083, 0.28), (0.021, 0.13), (0.057, 0.06), (0.13, 0.03))
    return base - height * sum(
        share * math.sin(frequency * roughness * x + phase * (n + 2)) for n, (frequency, share) in enumerate(waves)
    )


def mix(first, second, share):
    return tuple(a + (b - a) * share for a, b in zip(first, second))


def sky(x, y):
    colour = mix((64, 96, 160), (250, 206, 160), min(1.0, (y / 640) ** 1.4))
    glow = math.exp(-(((x - SUN[0]) / 330) ** 2 + ((y - SUN[1]) / 230) ** 2))
    colour = mix(colour, (255, 236, 190), 0.75 * glow)
    if math.hypot(x - SUN[0], y - SUN[1]) < 46:
        colour = (255, 246, 222)
    cloud = math.sin(x * 0.006 + 3 * math.sin(y * 0.017)) * math.sin(y * 0.034 + math.sin(x * 0.0041))
    return mix(colour, (255, 244, 232), max(0.0, cloud - 0.45) * 0.7)


def grain(x, y):
    # A hash, not a generator: the same picture on every machine.
    value = (x * 374761393 + y * 668265263) & 0xFFFFFFFF
    value = (value ^ (value >> 13)) * 1274126177 & 0xFFFFFFFF
    return ((value >> 16) & 0xFF) / 255 - 0.5


def land_and_sky(x, y, ridges):
    for index in range(len(RANGES) - 1, -1, -1):
        if y >= ridges[index]:
            depth = min(1.0, (y - ridges[index]) / 150)
            haze = mix(RANGES[index][3], (226, 204, 190), 0.35 * depth)
            return mix(haze, (20, 34, 30), 0.12 * (index + 1) * (0.5 + grain(x // 3, y // 3)))
    return sky(x, y)


def row(y, ridges):
    pixels = bytearray()
    for x in range(WIDTH):
        if y < SHORE:
            colour = land_and_sky(x, y, ridges[x])
        else:
            distance = y - SHORE
            ripple = math.sin(distance * distance * 0.0021 + x * 0.012) + math.sin(distance * 0.9 + x * 0.031)
            mirrored = SHORE - 1 - distance * 1.9 + ripple * (1 + distance * 0.03)
            column = min(WIDTH - 1, max(0, int(x + ripple * (1 + distance * 0.02))))
            colour = mix(land_and_sky(column, max(0, int(mirrored)), ridges[column]), (30, 52, 78), 0.3 + 0.0008 * distance)
        pixels += bytes(max(0, min(255, int(channel + 0.5))) for channel in colour)
    return pixels


def filtered(line, above):
    left = bytes(3) + line[:-3]
    candidates = (
        bytes(line),
        bytes((a - b) & 255 for a, b in zip(line, left)),
        bytes((a - b) & 255 for a, b in zip(line, above)),
        bytes((a - ((b + c) >> 1)) & 255 for a, b, c in zip(line, left, above)),
    )
    cost = lambda data: sum(min(byte, 256 - byte) for byte in data)  # noqa: E731
    kind = min(range(len(candidates)), key=lambda n: cost(candidates[n]))
    return bytes([kind]) + candidates[kind]


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def main():
    ridges = [[ridge(index, x) for index in range(len(RANGES))] for x in range(WIDTH)]
    packer, data, above = zlib.compressobj(9), b"", bytes(3 * WIDTH)
    for y in range(HEIGHT):
        line = row(y, ridges)
        data += packer.compress(filtered(line, above))
        above = line
    data += packer.flush()
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    sys.stdout.buffer.write(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


if __name__ == "__main__":
    main()
