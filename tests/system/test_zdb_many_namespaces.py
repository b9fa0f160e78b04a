"""A thousand namespaces made, written and deleted by one client, over and over past what is kept open at once, while others write
and read in theirs: nobody hears an error, memory and descriptors stay small, and in the end names and disk are as before."""
import os
import pathlib
import re
import sys
import tempfile
import threading
import time

from harness import Failed, wait_for
from zdb_client import Server, ZdbError, ended_after

QS = sys.argv[1]
MANY, KEPT, OTHERS = 1000, 37, 3
VALUE = bytes(range(256)) * 64  # 16 KiB


def rss_anon(server):
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"^RssAnon:\s+(\d+) kB", text, re.M).group(1)) << 10


def descriptors(server):
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def on_disk(server):
    """Of everything but the tenants' directories, which grow and are compacted meanwhile."""
    total, theirs = 0, {}
    for p in server.data.rglob("*"):
        try:
            if p.parent not in theirs:
                settings = p.parent / "namespace"
                theirs[p.parent] = settings.is_file() and f"name {b'tenant'.hex()}" in settings.read_text()
            total += 0 if theirs[p.parent] else p.lstat().st_blocks * 512
        except FileNotFoundError:
            pass
    return total


class Tenant(threading.Thread):
    """Writes and reads in its own namespace until it is told to stop; knows every value that it has written."""

    def __init__(self, server, number):
        super().__init__(daemon=True)
        self.name_of_it, self.number = b"tenant%d" % number, number
        self.c = server.connect()
        assert self.c.call("NSNEW", self.name_of_it) == b"OK"
        assert self.c.call("SELECT", self.name_of_it) == b"OK"
        self.stop, self.rounds, self.values, self.wrong, self.slowest = threading.Event(), 0, {}, None, 0.0

    def run(self):
        try:
            while not self.stop.is_set():
                key = b"key%d" % (self.rounds % 50)
                value = b"%d of %d " % (self.rounds, self.number) + VALUE[:self.rounds % 3000]
                begin = time.monotonic()
                assert self.c.call("SET", key, value) == key
                self.slowest = max(self.slowest, time.monotonic() - begin)
                self.values[key] = value
                other = b"key%d" % (self.rounds * 7 % 50)
                got = self.c.call("GET", other)
                assert got == self.values.get(other), f"{other} is {got and got[:30]}"
                self.rounds += 1
        except BaseException as e:  # noqa: B902 - shown by the main thread
            self.wrong = e

    def end(self):
        self.stop.set()
        self.join(30)
        assert not self.is_alive(), f"{self.name_of_it} hangs"
        if self.wrong:
            raise Failed(f"{self.name_of_it} after {self.rounds} rounds: {self.wrong!r}")
        for key, value in self.values.items():
            assert self.c.call("GET", key) == value, key
        self.c.close()


def fine(replies, expected, what):
    for i, (r, e) in enumerate(zip(replies, expected, strict=True)):
        assert not isinstance(r, ZdbError) and r == e, f"{what} {i}: {r!r}"


with tempfile.TemporaryDirectory(prefix="qs-zdb-many-") as tmp:
    server = Server(QS, pathlib.Path(tmp) / "data")
    with ended_after(lambda: server):
        tenants = [Tenant(server, i) for i in range(OTHERS)]
        idle, begin_rss = on_disk(server), rss_anon(server)
        for t in tenants:
            t.start()
        maker = server.connect(timeout=120)
        names = [b"space %d" % i for i in range(MANY)]
        begin = time.monotonic()
        fine(maker.call_many(("NSNEW", n) for n in names), [b"OK"] * MANY, "NSNEW")
        replies = maker.call_many(c for n in names for c in (("SELECT", n), ("SET", b"key", n + VALUE)))
        fine(replies, [b"OK", b"key"] * MANY, "SELECT and SET")
        listed = maker.call("NSLIST")
        assert set(listed) == {b"default", *names, *(t.name_of_it for t in tenants)} and len(listed) == MANY + OTHERS + 1
        full = on_disk(server)
        assert full - idle > MANY * len(VALUE), f"{full - idle} bytes on disk for {MANY} values"
        # Read back, so that every one of them is opened once more.
        fine(maker.call_many(c for n in names for c in (("SELECT", n), ("GET", b"key"))),
             [r for n in names for r in (b"OK", n + VALUE)], "SELECT and GET")
        most_fds, most_rss = descriptors(server), rss_anon(server)
        # 256 for data files, and clients, sockets and what belongs to the process; docs/zdb.md has 267 for ten thousand.
        assert most_fds < 300, f"{most_fds} descriptors"
        # 10,000 take 38 to 46 MiB: a thousand with the values that are kept in memory (at most 64 MiB) stay well below this.
        assert most_rss - begin_rss < 64 << 20, f"{most_rss - begin_rss} bytes for {MANY} namespaces"

        # All but some of them go; who works meanwhile works.
        gone, kept = names[KEPT:], names[:KEPT]
        at = [t.rounds for t in tenants]
        fine(maker.call_many((c for c in [("SELECT", b"default"), *(("NSDEL", n) for n in gone)])), [b"OK"] * (len(gone) + 1), "NSDEL")
        took = time.monotonic() - begin
        during = [t.rounds - a for t, a in zip(tenants, at)]
        assert all(during), f"a tenant stood still during {len(gone)} NSDEL: {during}"
        for t in tenants:
            t.end()
        expected = {b"default", *kept, *(t.name_of_it for t in tenants)}
        assert set(maker.call("NSLIST")) == expected and len(maker.call("NSLIST")) == len(expected)
        assert str(maker.call_many([("NSINFO", gone[0])])[0]) == "Namespace not found"
        fine(maker.call_many(c for n in kept for c in (("SELECT", n), ("GET", b"key"))),
             [r for n in kept for r in (b"OK", n + VALUE)], "what was kept:")

        # The disk: what was kept. Files of a deleted namespace go after its answer.
        bound = idle + KEPT * (len(VALUE) + (32 << 10)) + (1 << 20)
        left = wait_for("the disk space", lambda: (n := on_disk(server)) < bound and n, 60)
        directories = [p.name for p in (server.data / "namespaces").iterdir() if p.is_dir()]
        assert len(directories) == len(expected), f"{len(directories)} directories for {len(expected)} namespaces"
        wait_for("memory to be given back", lambda: rss_anon(server) - begin_rss < 24 << 20, 60)
        # And after a kill it is all still so.
        server.kill()
        server = Server(QS, server.data)
        c = server.connect()
        assert set(c.call("NSLIST")) == expected
        for n in kept:
            assert c.call("SELECT", n) == b"OK" and c.call("GET", b"key") == n + VALUE
        assert server.kill(15) == 0
print(f"{MANY} namespaces in {took:.1f} s beside {sum(t.rounds for t in tenants)} rounds of others (slowest SET {max(t.slowest for t in tenants) * 1000:.0f} ms): "
      f"{most_fds} descriptors, {(most_rss - begin_rss) >> 20} MiB; {full >> 20} MiB on disk, {left >> 20} afterwards")
