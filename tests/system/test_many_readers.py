"""Ten thousand readers wait at once, and one node stays silent: the engine's memory does not grow with them (it stays below 1 GiB),
every read is answered right, and what the engine answers without the nodes is answered meanwhile.
"""
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time
import traceback

from harness import Failed, Sandbox, need_fuse, wait_for

need_fuse()
READERS = 10_000
PROCESSES = 20  # of threads: the interpreter's lock is one per process, and a crowd before it costs more than the reads
SIZE = 192 << 20
BLOCK = 4096
GIB = 1 << 30


def peak(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("VmHWM:"))


def reset_peak(pid):
    with open(f"/proc/{pid}/clear_refs", "w") as f:
        f.write("5")


class Crowd:
    """Threads of several processes, each of which reads one block when told; nobody reads before all are there."""

    def __init__(self, path, content, blocks):
        self.figures = mmap.mmap(-1, 4096 * 2)  # of each process: ready, begun, answered, wrong
        self.start_read, self.start_write = os.pipe()
        self.pids = []
        for i in range(PROCESSES):
            pid = os.fork()
            if pid == 0:
                try:
                    os.close(self.start_write)
                    self.child(i, path, content, blocks[i::PROCESSES])
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)  # not through the parent's clean-up
            self.pids.append(pid)
        os.close(self.start_read)

    def child(self, i, path, content, blocks):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        go = threading.Event()
        begun, answered = [], []

        def read(block):
            go.wait()
            begun.append(block)
            self.set(i, 1, len(begun))
            try:
                right = os.pread(fd, BLOCK, block * BLOCK) == content[block * BLOCK:(block + 1) * BLOCK]
            except OSError as e:
                print(f"block {block}: {e}", file=sys.stderr)
                right = False
            answered.append(right)
            self.set(i, 2, len(answered))

        threading.stack_size(128 << 10)
        threads = [threading.Thread(target=read, args=(b,)) for b in blocks]
        for t in threads:
            t.start()
        self.set(i, 0, len(threads))
        os.read(self.start_read, 1)  # ends when the parent closes it
        go.set()
        for t in threads:
            t.join()
        self.set(i, 1, len(begun))
        self.set(i, 3, answered.count(False))
        self.set(i, 2, len(answered))

    def set(self, i, what, value):
        struct.pack_into("<I", self.figures, i * 16 + what * 4, value)

    def sum(self, what):
        return sum(struct.unpack_from("<I", self.figures, i * 16 + what * 4)[0] for i in range(PROCESSES))

    def ready(self):
        return self.sum(0)

    def begun(self):
        return self.sum(1)

    def answered(self):
        return self.sum(2)

    def wrong(self):
        return self.sum(3)

    def go(self):
        os.close(self.start_write)

    def end(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


with Sandbox(sys.argv[1], "readers") as box:
    box.init("--staging", "512MiB")
    box.edit("replace_after: 4s", "replace_after: 1h")
    box.apply()
    content = random.Random(1).randbytes(SIZE)
    (box.mount / "big").write_bytes(content)
    box.wait_ready()
    box.run("cache", "drop")
    pid = box.engine_pid()
    nodes = list(box.zdb_pids())

    crowd = Crowd(box.mount / "big", content, random.Random(1).sample(range(SIZE // BLOCK), READERS))
    try:
        wait_for("all readers to be there", lambda: crowd.ready() == READERS, 60)
        reset_peak(pid)
        before = peak(pid)
        for p in nodes:  # until all readers wait; one of them goes on to be silent
            os.kill(p, signal.SIGSTOP)
        try:
            began = time.monotonic()
            crowd.go()
            while crowd.begun() < READERS and time.monotonic() - began < 8:
                time.sleep(0.01)
            pending = crowd.begun() - crowd.answered()
            for p in nodes[1:]:
                os.kill(p, signal.SIGCONT)
            names = []

            def answered():
                asked = time.monotonic()
                os.stat(box.mount / "big")
                names.append(time.monotonic() - asked)
                if crowd.answered() == READERS:
                    return True
                raise Failed(f"{crowd.answered()} of {READERS} reads answered")
            wait_for("all reads to be answered", answered, 120)
            took = time.monotonic() - began
        finally:
            for p in nodes:
                os.kill(p, signal.SIGCONT)
        for child in crowd.pids:
            os.waitpid(child, 0)
        crowd.pids = []
        assert crowd.wrong() == 0, f"{crowd.wrong()} reads failed or gave other bytes"
        most = peak(pid)
        assert most < GIB, f"the engine used {most >> 20} MiB"
        assert pending > READERS * 8 // 10, f"only {pending} reads were pending at once"
    finally:
        crowd.end()
    box.wait_ready(redundancy=2)
    box.run("destroy", "--confirm", "readers")
print(f"{READERS} readers, {pending} pending at once, one node silent: {took:.0f} s, the engine's peak {before >> 20} -> {most >> 20} MiB, "
      f"longest stat meanwhile {max(names):.1f} s")
