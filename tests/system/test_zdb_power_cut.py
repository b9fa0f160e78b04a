"""A power cut under a zdb server: its data stands on an ext4 of its own that is shut down without flushing its log.

With --sync every acknowledged write is there afterwards; without it, everything answered before an answered SYNC. Meanwhile the
disk answers EIO to everything: the server says so and lives. At the end the disk turns read-only under it: reads go on.
"""
import errno
import fcntl
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

from harness import Failed, skip, skip_part, wait_for
from zdb_client import Server, ZdbError
from zdb_manifest import Manifest, write_in_background

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
ROUNDS = 5
qs = sys.argv[1]
if os.geteuid() != 0:
    skip("needs root for loop mounts")


def mount(image, where):
    r = subprocess.run(["mount", "-o", "loop,errors=remount-ro", str(image), str(where)], capture_output=True, text=True)
    if r.returncode:
        skip(f"no loop mounts here: {r.stderr.strip()}")


def cut(where):
    fd = os.open(where, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    except OSError as e:
        skip(f"this kernel does not shut an ext4 down: {e}")
    finally:
        os.close(fd)


class SyncedManifest(Manifest):
    """Of what was answered, only what was answered before a SYNC is certain; what came later may be there or not."""

    def write(self, client, stop, window=16):
        self.certain = {}  # key -> its values since the last answered SYNC, the one then first
        return super().write(client, stop, window, self.synced)

    def synced(self):
        """The SYNC is sent now; everything whose answer it follows is on the disk when it is answered. The connection answers
        in order, so that is everything sent before it."""
        upto = dict(self.last_sent)

        def answered():
            for key, serial in upto.items():
                values = self.sent[key]
                while len(values) > 1 and values[0][0] < serial:
                    values.pop(0)
            self.syncs += 1

        return answered

    def __init__(self, *a, **kw):
        super().__init__(*a, **kw)
        self.sent = {}
        self.last_sent = {}
        self.count = 0
        self.syncs = 0

    def next_command(self):
        command, key, value = super().next_command()
        self.count += 1
        self.sent.setdefault(key, [(0, None)]).append((self.count, value))
        self.last_sent[key] = self.count
        return command, key, value

    def check(self, client):
        self.may_be = {key: {v for _n, v in values} for key, values in self.sent.items()}
        super().check(client)
        self.sent = {key: [(0, next(iter(v)))] for key, v in self.may_be.items()}
        self.last_sent = {}


def refused(client, *args):
    r = client.call_many([args])[0]
    return isinstance(r, ZdbError)


moments = random.Random(7)
with tempfile.TemporaryDirectory(prefix="qs-zdb-power-") as tmp:
    tmp = pathlib.Path(tmp)
    image, disk = tmp / "image", tmp / "disk"
    disk.mkdir()
    server = None
    mounted = False
    try:
        for flags, manifest in ((["--sync", "--cache", "off"], Manifest(1, 200, 4000)), ([], SyncedManifest(2, 200, 4000))):
            with open(image, "wb") as f:
                f.truncate(256 << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
            mount(image, disk)
            mounted = True
            for i in range(ROUNDS):
                server = Server(qs, disk / "data", "--datasize", "512K", *flags, log=tmp / "server.log")
                client = server.connect()
                manifest.check(client)
                manifest.cut = False
                thread, stop = write_in_background(manifest, client)
                time.sleep(moments.uniform(0.1, 0.5))  # the moment; nothing is waited for
                # A shutdown of ext4 is not quite a power cut: an fdatasync that is under way says yes for what is not on the disk.
                manifest.cut = True
                cut(disk)
                # What it answers from now on is an error, or a write that no later SYNC or --sync confirms.
                thread.join(5)
                stop.set()
                other = server.connect()
                wait_for("SYNC or SET to be refused", lambda: refused(other, "SET", "late", "x") or refused(other, "SYNC"), 20)
                assert other.call("PING") == b"PONG"
                # A key that is there and cannot be read is an error, not a missing key; what is in memory can be read.
                there = next((k for k, v in manifest.may_be.items() if len(v) == 1 and v != {None} and k != b"late"), None)
                for name in ("GET", "LENGTH", "KEYTIME"):
                    answer = other.call_many([(name, there)])[0] if there else ZdbError()
                    fine = isinstance(answer, ZdbError) or ("off" not in flags and answer is not None)
                    assert fine, f"{name} of an unreadable key: {answer!r:.100}"
                assert server.alive(), "the server ended over EIO"
                server.kill()
                thread.join(30)
                client.close()
                other.close()
                manifest.may_be.setdefault(b"late", {None}).add(b"x")
                if hasattr(manifest, "sent"):
                    manifest.sent.setdefault(b"late", [(0, None)]).append((0, b"x"))
                subprocess.run(["umount", str(disk)], check=True)
                mounted = False
                mount(image, disk)
                mounted = True
            server = Server(qs, disk / "data", "--datasize", "512K", *flags, log=tmp / "server.log")
            client = server.connect()
            manifest.check(client)
            if flags:
                acknowledged = manifest.acknowledged
                server.kill()
                subprocess.run(["umount", str(disk)], check=True)
                mounted = False
        assert acknowledged > 50, acknowledged
        assert manifest.syncs > 20, manifest.syncs

        # The disk turns read-only: the kernel does that by itself after an error of its own.
        client.call("SET", "kept", "value")
        client.call("SYNC")
        source = subprocess.run(["findmnt", "-n", "-o", "SOURCE", str(disk)], capture_output=True, text=True).stdout.strip()
        trigger = pathlib.Path("/sys/fs/ext4") / pathlib.Path(source).name / "trigger_fs_error"
        read_only = False
        try:
            trigger.write_text("1")
            (disk / "probe").write_text("")
        except OSError as e:
            read_only = e.errno == errno.EROFS
            if not read_only:
                skip_part(f"a disk that turns read-only ({e})")
        if read_only:
            assert refused(client, "SET", "more", "value")
            assert refused(client, "DEL", "kept")
            assert client.call("GET", "kept") == b"value"
            assert client.call("GET", "more") is None
            assert server.alive()
            print("read-only disk: writes refused, reads answered")
    except BaseException:
        if server:
            print(server.log.read_text(errors="replace")[-6000:], file=sys.stderr)
        raise
    finally:
        if server:
            server.kill()
        if mounted:
            subprocess.run(["umount", "-l", str(disk)], check=False)
print(f"{ROUNDS} power cuts with --sync ({acknowledged} acknowledged writes) and {ROUNDS} with SYNC ({manifest.syncs} of them): "
      "everything promised is there")
