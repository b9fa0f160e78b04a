"""Thousands of readers wait at once, and one node has been stopped in the middle of it: the engine's memory does not grow with them
(it stays below 1 GiB), every read is answered right, and what the engine answers without the nodes is answered meanwhile."""
import os
import random
import resource
import signal
import sys
import threading
import time

from harness import Sandbox, need_fuse, wait_for

need_fuse()
READERS = 4000
SIZE = 192 << 20
BLOCK = 4096
GIB = 1 << 30


def peak(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM:"))


def reset_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


with Sandbox(sys.argv[1], "readers") as box:
    box.init("--staging", "512MiB")
    box.apply()
    content = random.Random(1).randbytes(SIZE)
    (box.mount / "big").write_bytes(content)
    box.wait_ready()
    box.run("cache", "drop")
    pid = box.engine_pid()
    reset_peak(pid)
    before = peak(pid)

    fd = os.open(box.mount / "big", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    blocks = random.Random(1).sample(range(SIZE // BLOCK), READERS)
    go = threading.Event()
    answers, bad, done = [], [], threading.Semaphore(0)

    def read(block):
        go.wait()
        try:
            data = os.pread(fd, BLOCK, block * BLOCK)
            if data != content[block * BLOCK:(block + 1) * BLOCK]:
                bad.append((block, "other bytes"))
        except OSError as e:
            bad.append((block, e.strerror))
        answers.append(time.monotonic())

    threading.stack_size(128 << 10)
    threads = [threading.Thread(target=read, args=(b,), daemon=True) for b in blocks]
    for t in threads:
        t.start()
    stopped = next(iter(box.zdb_pids()))
    os.kill(stopped, signal.SIGSTOP)
    began = time.monotonic()
    try:
        go.set()
        names = []
        while len(answers) < READERS:
            asked = time.monotonic()
            os.stat(box.mount / "big")
            names.append(time.monotonic() - asked)
            if time.monotonic() - began > 240:
                raise AssertionError(f"{len(answers)} of {READERS} reads answered after 240 s")
            time.sleep(0.1)
    finally:
        os.kill(stopped, signal.SIGCONT)
    took = time.monotonic() - began
    assert not bad, f"{len(bad)} reads failed: {bad[:5]}"
    most = peak(pid)
    assert most < GIB, f"the engine used {most >> 20} MiB"
    box.wait_ready(redundancy=2)
    box.run("destroy", "--confirm", "readers")
print(f"{READERS} readers, one node stopped: {took:.0f} s, the engine's peak {before >> 20} -> {most >> 20} MiB, "
      f"longest stat meanwhile {max(names):.1f} s")
