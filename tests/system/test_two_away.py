"""Two of six nodes stand still, as many as may be lost: what is written is then on no node more than is needed to read it, so the log
keeps all of it and writers are slowed, but not refused, until replacements are ready. Nobody has to do anything for that.
"""
import hashlib
import os
import signal
import statistics
import sys
import time

from harness import Failed, Sandbox, need_fuse

need_fuse()
MIB = 1 << 20
LOG = 512 * MIB
FILE = 4 * MIB

with Sandbox(sys.argv[1], "twoaway") as box:
    box.init("--staging", f"{LOG // MIB}MiB")
    box.apply()
    box.wait_ready()
    ids = {n["id"] for n in box.status()["nodes"]}
    files, held, slow, fast = {}, 0, [], []

    def write():
        """One more file; an error ends the test here. Returns the log as it was before and the seconds it took."""
        data = os.urandom(FILE)
        log = box.status()["volume"]["log_bytes"]
        path = box.mount / f"f-{len(files)}"
        began = time.monotonic()
        path.write_bytes(data)
        files[path] = hashlib.sha256(data).hexdigest()
        return log, time.monotonic() - began

    stopped = list(box.zdb_pids())[:2]
    for p in stopped:
        os.kill(p, signal.SIGSTOP)
    try:
        end = time.monotonic() + 150
        written = [(0.0, 0)]
        while True:
            log, took = write()
            held = max(held, log)
            (slow if log > LOG // 2 + LOG // 16 else fast).append(took)
            s = box.status()
            replaced = len({n["id"] for n in s["nodes"] if n["state"] == "ready"} - ids)
            # Nothing leaves the log: no group has more than what is needed to read it. Figures are a second old at most.
            written.append((time.monotonic(), len(files) * FILE))
            known = max(size for at, size in written if at < time.monotonic() - 1 or size == 0)
            assert replaced > 0 or s["volume"]["log_bytes"] >= known, (s["volume"]["log_bytes"], known)
            if replaced == 2 and s["volume"]["log_bytes"] < LOG // 2:
                break
            if time.monotonic() > end:
                raise Failed(f"{len(files)} files, the nodes were not replaced: {s}")
    finally:
        for p in stopped:
            try:
                os.kill(p, signal.SIGCONT)
            except ProcessLookupError:
                pass  # its place was taken, and it was ended
    s = box.wait_ready(redundancy=2)
    assert len({n["id"] for n in s["nodes"]} - ids) == 2, s["nodes"]
    assert slow, f"the log held {held // MIB} MiB only: nobody was slowed"
    assert statistics.median(slow) > 2 * statistics.median(fast), (slow, fast)
    box.same_from_nodes(files)
    box.run("destroy", "--confirm", "twoaway")
print(f"{len(files) * FILE // MIB} MiB through a log of {LOG // MIB} MiB with two nodes away until they were replaced: it held {held // MIB} MiB, "
      f"{statistics.median(fast):.2f} s a file, {statistics.median(slow):.2f} s above half of it")
