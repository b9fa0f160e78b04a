"""More than m nodes do not answer: cached reads go on, others fail with EIO in bounded time, writes go on into the log up to its
limit, slowed and then refused, never dropped; unlink works; all is well when the nodes return."""
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
with Sandbox(sys.argv[1], "away") as box:
    box.init("--staging", "64MiB")
    box.apply()
    cold = os.urandom(8 << 20)
    (box.mount / "cold").write_bytes(cold)
    box.wait_ready()
    box.run("cache", "drop")
    warm = os.urandom(1 << 20)
    (box.mount / "warm").write_bytes(warm)

    stopped = list(box.zdb_pids())[:4]
    for p in stopped:
        os.kill(p, signal.SIGSTOP)
    try:
        assert (box.mount / "warm").read_bytes() == warm, "what this machine holds must be readable"
        began = time.monotonic()
        try:
            (box.mount / "cold").read_bytes()
            raise Failed("a file was read that no k nodes can give")
        except OSError as e:
            assert e.errno == errno.EIO, e
        waited = time.monotonic() - began
        # 15 s for what the kernel read ahead, and 2 each time it or the program asks again for what it needs.
        assert waited < 26, f"EIO came after {waited:.0f} s"
        assert "ReadFailed" in box.run("events").stdout, box.run("events").stdout[-2000:]
        began = time.monotonic()
        try:  # all of it: a single page may well be on one of the nodes that are left
            (box.mount / "cold").read_bytes()
            raise Failed("a file was read that no k nodes can give")
        except OSError as e:
            assert e.errno == errno.EIO, e
        again = time.monotonic() - began
        assert again < 16, f"the second EIO came after {again:.0f} s"

        written = {}
        refused = None
        for i in range(400):
            data = os.urandom(1 << 20)
            try:
                with open(box.mount / f"log-{i}", "wb") as f:
                    f.write(data)
                written[f"log-{i}"] = hashlib.sha256(data).hexdigest()
            except OSError as e:
                refused = e
                break
        assert refused is not None and refused.errno == errno.ENOSPC, f"{len(written)} MiB went into a log of 64 MiB: {refused}"
        assert len(written) >= 20, f"only {len(written)} MiB went into the log"
        (box.mount / "log-0").unlink()
        del written["log-0"]
        os.truncate(box.mount / "log-1", 1000)
        del written["log-1"]
        subprocess.run(["ls", "-la", str(box.mount)], check=True, capture_output=True)
        ids = sorted(n["id"] for n in box.status()["nodes"])
    finally:
        for p in stopped:
            os.kill(p, signal.SIGCONT)
    wait_for("the cold file to be readable again", lambda: (box.mount / "cold").read_bytes() == cold, 60)
    box.wait_ready(redundancy=2)
    for name, digest in written.items():
        assert hashlib.sha256((box.mount / name).read_bytes()).hexdigest() == digest, name
    box.run("cache", "drop")
    for name, digest in written.items():
        assert hashlib.sha256((box.mount / name).read_bytes()).hexdigest() == digest, f"{name}, from the nodes"
    assert sorted(n["id"] for n in box.status()["nodes"]) == ids, "nodes were changed on a guess"
    (box.mount / "after").write_bytes(b"goes on")
    box.run("destroy", "--confirm", "away")
print(f"EIO after {waited:.1f} s, the next after {again:.1f} s; {len(written)} MiB kept in the log and safe afterwards")
