"""The key-group hash, version 1, written a second time from docs/design/key-group-hash.md: prints the golden file."""
import struct

MASK = (1 << 64) - 1
SEED, MULTIPLIER, NULL = 0x7275736C6F206B67, 0x9FB21C651E98DF25, 0xA0761D6478BD642F


def mix(h, word):
    product = (h ^ (word & MASK)) * MULTIPLIER
    return (((product >> 64) ^ (product & MASK)) + MULTIPLIER) & MASK


def finish(h):
    h = ((h ^ (h >> 32)) * MULTIPLIER) & MASK
    return h ^ (h >> 29)


def double(x):
    if x == 0:
        return 0
    if x != x:
        return 0x7FF8000000000000
    return struct.unpack('<Q', struct.pack('<d', x))[0]


def text(h, data):
    for i in range(0, len(data), 8):
        h = mix(h, int.from_bytes(data[i:i + 8], 'little'))
    return mix(h, len(data))


def row(h):
    return f'{finish(h):016x}'


def wide(value):
    value &= (1 << 128) - 1
    return mix(mix(SEED, value & MASK), value >> 64)


print(*[row(mix(SEED, v)) for v in (0, 1, -1, (1 << 63) - 1, NULL)])
print(*[row(mix(SEED, double(v))) for v in (0.0, 1.5, float('nan'), float('inf'))])
print(*[row(text(SEED, v)) for v in (b'', b'JFK', b'12345678', b'123456789')])
print(*[row(mix(SEED, v)) for v in (1, 0)])
print(*[row(wide(v)) for v in (12345, -1)])
print(row(text(SEED, b'ruslo')), row(SEED))
