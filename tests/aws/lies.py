"""Hosts that lie: what they do to the reply that the real script printed, and to the object that it uploaded.

A reply is a head of `key value` lines between `DIFFY1 NONCE` and `data` or `DIFFY1-END NONCE`, then lines of base64.
Output of other scripts has no such head, and only floods change it.
"""

import base64
import gzip
import hashlib
import zlib

MARK, END = b"DIFFY1 ", b"DIFFY1-END "
# Frames that no script of ours writes.
BAD_FRAMES = (
    b"A ../../../etc/passwd 0 1 2 - 2 0\n[]\n"
    b"A users 0 1 2 - -1 18446744073709551616\n[]\n"
    b"A users zero 99999999999999999999 2 cut,unknown 9000000000 0\n[]\n"
    b"Z 4294967296\n"
)


class Reply:
    """A reply taken apart; `bytes(reply)` puts it together."""

    def __init__(self, stdout):
        self.before, found, rest = stdout.partition(MARK)
        self.is_reply = bool(found) and (not self.before or self.before.endswith(b"\n"))
        lines = (found + rest).split(b"\n")
        end = next((at for at, line in enumerate(lines) if line.startswith(END)), len(lines))
        data = next((at for at, line in enumerate(lines[:end]) if line == b"data"), end)
        self.head, self.data, self.tail = lines[:data], lines[data:end], lines[end:]

    def __bytes__(self):
        return self.before + b"\n".join(self.head + self.data + self.tail)

    def set(self, key, value):
        """Replaces a line of the head."""
        start = key + b" "
        self.head = [start + value if line.startswith(start) else line for line in self.head]

    def announce(self, packed):
        """The head fits these bytes."""
        self.set(b"gz", str(len(packed)).encode())
        self.set(b"sha256", hashlib.sha256(packed).hexdigest().encode())

    def carry(self, packed):
        """The data are these bytes."""
        text = base64.b64encode(packed)
        self.data = [b"data"] + [text[at:at + 76] for at in range(0, len(text), 76)]


def bomb(size):
    """A gzip of `size` zeros behind a whole first frame: one member, made of one block over and over."""
    head = b"A bomb 0 0 0 - %d 0\n" % size
    step = 1 << 20
    maker = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = maker.compress(head) + maker.flush(zlib.Z_FULL_FLUSH)
    block = maker.compress(bytes(step)) + maker.flush(zlib.Z_FULL_FLUSH)
    times = size // step
    crc = zlib.crc32(head)
    for _ in range(times):
        crc = zlib.crc32(bytes(step), crc)
    length = (len(head) + times * step) & 0xFFFFFFFF
    packed += block * times + maker.flush()
    return gzip.compress(b"", mtime=0)[:10] + packed + crc.to_bytes(4, "little") + length.to_bytes(4, "little")


def upload(behaviours):
    """What a host uploads instead of its answers, or None."""
    if "bad_gzip" in behaviours:
        return b"this is no gzip\n" * 40
    if "zip_bomb" in behaviours:
        return bomb(behaviours["zip_bomb"].get("bytes", 256 << 20))
    if "bad_frames" in behaviours:
        return gzip.compress(BAD_FRAMES, mtime=0)
    if "wrong_object" in behaviours:
        # Larger than announced, when `bytes` says so.
        return gzip.compress(b"Z 0\n", mtime=0) + bytes(behaviours["wrong_object"].get("bytes", 0))
    return None


def tell(behaviours, stdout, instance, planted):
    """What a host with these behaviours prints when its script printed `stdout`.

    `planted` is what it uploads instead of its answers.
    """
    reply = Reply(stdout)
    if reply.is_reply:
        for kind, options in behaviours.items():
            if kind in LIES:
                LIES[kind](reply, options, planted)
        stdout = bytes(reply)
    if "stdout_flood" in behaviours:
        options = behaviours["stdout_flood"]
        flood = (f"{instance} says nothing, at length\n" * (options.get("bytes", 4 << 20) // 50)).encode()
        stdout = stdout + flood if options.get("where") == "after" else flood + stdout
    return stdout


def flood_stderr(behaviours, stderr):
    """What a host with these behaviours says on stderr."""
    if "stderr_flood" not in behaviours:
        return stderr
    line = b"W1122 00:00:00.000000 1 query.cpp:42] table error \x1b[31m\xff\n"
    return stderr + line * (behaviours["stderr_flood"].get("bytes", 1 << 20) // len(line))


def _other_name(reply, options, _):
    reply.set(b"host", options.get("as", "i-0ffffffffffffffff").encode())


def _bad_id(reply, *_):
    reply.set(b"host", b"i-\x1b[2J\x07\x00\xff../../etc/passwd\r" + b"A" * 10240)


def _replaced(reply, _, planted):
    """The data are the planted bytes, rightly announced; of an upload there are only size and digest."""
    if reply.data:
        planted = planted if len(planted) <= 16 << 10 else bomb(12 << 20)
        reply.carry(planted)
    reply.set(b"raw", b"4096")
    reply.announce(planted)


def _wrong_object(reply, _, planted):
    if reply.data:
        reply.carry(planted[:16 << 10])


def _wrong_digest(reply, *_):
    reply.set(b"sha256", hashlib.sha256(b"something else").hexdigest().encode())


def _no_end(reply, *_):
    reply.tail = []


def _huge_claim(reply, options, _):
    claim = str(options.get("bytes", 8 << 30)).encode()
    reply.set(b"raw", claim)
    reply.set(b"gz", claim)


LIES = {
    "other_name": _other_name,
    "bad_id": _bad_id,
    "bad_gzip": _replaced,
    "bad_frames": _replaced,
    "zip_bomb": _replaced,
    "wrong_object": _wrong_object,
    "wrong_digest": _wrong_digest,
    "no_end": _no_end,
    "huge_claim": _huge_claim,
}
