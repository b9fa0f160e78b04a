"""One of six nodes does not answer for a long time and is not replaced: writing goes on at full speed for as long as it takes. The
log does not fill, repair owns what is missing; when the node is back everything is whole and reads back the same.
"""
import hashlib
import os
import random
import signal
import sys
import threading
import time

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
MIB = 1 << 20
LOG = 128 * MIB
FILE = 16 * MIB
source = random.Random(1)
files = {}


def write(box, name, total):
    """Files of one size; an error ends the test here. Returns the seconds it took."""
    began = time.monotonic()
    for i in range(total // FILE):
        data = source.randbytes(FILE)
        path = box.mount / f"{name}-{i}"
        path.write_bytes(data)
        files[path] = hashlib.sha256(data).hexdigest()
    return time.monotonic() - began


class Watch:
    """What the log holds while something else happens: the most of it, and whether it was ever full."""

    def __init__(self, box):
        self.box, self.most, self.full, self.looks, self.problem = box, 0, False, 0, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)
        self.thread.start()

    def look(self):
        while not self.over.is_set():
            try:
                v = self.box.status()["volume"]
                self.most, self.full, self.looks = max(self.most, v["log_bytes"]), self.full or v["log_full"], self.looks + 1
            except Exception as e:  # told by end(): a thread's own end is not seen
                self.problem = e
                return
            self.over.wait(0.1)

    def end(self):
        self.over.set()
        self.thread.join()
        if self.problem:
            raise self.problem


with Sandbox(sys.argv[1], "oneaway") as box:
    box.init("--staging", f"{LOG // MIB}MiB")
    box.edit("replace_after: 4s", "replace_after: 1h")
    box.apply()
    before = LOG / write(box, "before", LOG)
    box.wait_ready()
    ids = sorted(n["id"] for n in box.status()["nodes"])

    stopped = next(iter(box.zdb_pids()))
    os.kill(stopped, signal.SIGSTOP)
    try:
        # Nobody knows yet that it will not answer. Three seconds later new shards do without it, and what it was asked holds the
        # log no more, though it will be waited for until it has had its time.
        total = 2 * LOG
        watch = Watch(box)
        unnoticed = write(box, "unnoticed", total)
        watch.end()
        assert not watch.full, "the log was full before the node was found to stand still"
        assert box.status()["volume"]["rebuild_pending"] > 0, "repair owns nothing yet"

        def noticed():
            s = box.status()
            v = s["volume"]
            if "unreachable" in [n["state"] for n in s["nodes"]] and v["log_bytes"] < LOG // 2 and v["rebuild_pending"] > 0:
                return True
            raise Failed(str(v))
        wait_for("the node to be found unreachable, and repair to own what it was asked for", noticed, 60)

        watch = Watch(box)
        away = total / write(box, "away", total)
        watch.end()
        assert watch.looks >= 2, f"only {watch.looks} looks"
        assert not watch.full, "the log was full"
        # Writers that wait for a log that does not get emptier are tens of times slower.
        assert away > before / 8, f"{away / MIB:.0f} MiB/s with one node away, {before / MIB:.0f} with all"

        def owned():
            v = box.status()["volume"]
            missing = sum(v["segments_by_missing"][1:])
            # A segment is 2 MiB of data; those of the last LOG / 4 may still be pinned instead.
            if v["log_bytes"] < LOG // 2 and v["redundancy_left_min"] == 1 and v["rebuild_pending"] >= missing > total / (4 * MIB):
                return v
            raise Failed(str(v))
        wait_for("repair to own what is missing", owned, 30)
        assert sorted(n["id"] for n in box.status()["nodes"]) == ids, "a node was replaced in spite of replace_after"
    finally:
        os.kill(stopped, signal.SIGCONT)
    s = box.wait_ready(redundancy=2)
    assert sorted(n["id"] for n in s["nodes"]) == ids
    box.same_from_nodes(files)
    box.run("destroy", "--confirm", "oneaway")
print(f"{total // MIB} MiB through a log of {LOG // MIB} MiB with one node away: {away / MIB:.0f} MiB/s, at first {total / unnoticed / MIB:.0f} ({before / MIB:.0f} before), "
      f"the log held {watch.most // MIB} MiB at most")
