"""A node's process is killed in the middle of writing: no write fails or waits for long, the data is what was written, also from the
nodes, and the same node serves it again.
"""
import hashlib
import os
import signal
import sys
import time

from harness import Sandbox, need_fuse, wait_for

need_fuse()
MIB = 1 << 20
with Sandbox(sys.argv[1], "through") as box:
    box.init()
    box.edit("replace_after: 4s", "replace_after: 1h")  # started again is what it is to be, however long that takes
    box.apply()
    ids = sorted(n["id"] for n in box.status()["nodes"])
    victim = next(iter(box.zdb_pids()))
    pieces = [os.urandom(MIB) for _ in range(64)]
    slowest = 0.0
    with open(box.mount / "file", "wb", buffering=0) as f:
        for i, piece in enumerate(pieces):
            if i == len(pieces) // 4:
                os.kill(victim, signal.SIGKILL)
            began = time.monotonic()
            assert f.write(piece) == MIB  # an error ends the test here
            slowest = max(slowest, time.monotonic() - began)
        os.fsync(f.fileno())  # the disk's, however busy it is
    assert victim not in box.zdb_pids(), "it was to be killed"
    assert slowest < 5, f"a write took {slowest:.1f} s"
    digest = hashlib.sha256(b"".join(pieces)).digest()
    assert hashlib.sha256((box.mount / "file").read_bytes()).digest() == digest

    wait_for("its process to run again", lambda: len(box.zdb_pids()) == 6, 30)
    s = box.wait_ready(redundancy=2)
    assert sorted(n["id"] for n in s["nodes"]) == ids, "a node was replaced that had only to be started again"
    box.run("cache", "drop")
    assert hashlib.sha256((box.mount / "file").read_bytes()).digest() == digest, "from the nodes"
    box.run("destroy", "--confirm", "through")
print(f"node killed in the middle of {len(pieces)} MiB; slowest write {slowest * 1000:.0f} ms")
