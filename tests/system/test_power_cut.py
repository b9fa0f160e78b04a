"""A power cut of this machine: the state directory stands on an ext4 of its own that is shut down without flushing its log.

Everything that was fsynced before is there afterwards; what came after is a prefix, never a mixture (volume.md, invariant 7).
"""
import fcntl
import hashlib
import os
import signal
import struct
import subprocess
import sys

from harness import Failed, Sandbox, need_fuse, skip, wait_for

need_fuse()
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def loop_ext4(image, where, make):
    if make:
        with open(image, "wb") as f:
            f.truncate(4 << 30)  # sparse; the log leaves 1 GiB of a disk free
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    r = subprocess.run(["mount", "-o", "loop", str(image), str(where)], capture_output=True, text=True)
    if r.returncode:
        skip(f"no loop mounts here: {r.stderr.strip()}")


with Sandbox(sys.argv[1], "power") as box:
    disk = box.root / "disk"
    disk.mkdir()
    loop_ext4(box.root / "image", disk, True)
    box.env["XDG_STATE_HOME"] = str(disk / "state")
    box.init("--staging", "256MiB")
    box.apply()
    box.wait_ready()

    def put(name, data, sync):
        fd = os.open(box.mount / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        os.write(fd, data)
        if sync:
            os.fsync(fd)
        os.close(fd)

    synced = {}
    for i in range(200):
        data = hashlib.sha256(str(i).encode()).digest() * (1 + (i * 37) % 3000)
        last = i == 199
        put(f"synced-{i:03d}", data, last or i % 20 == 0)
        synced[f"synced-{i:03d}"] = hashlib.sha256(data).hexdigest()
    # The last fsync covers everything answered before it. What follows is answered, not synced.
    for i in range(200):
        put(f"after-{i:03d}", b"x" * (1000 + i), False)

    fd = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
    except OSError as e:
        skip(f"this kernel does not shut an ext4 down: {e}")
    finally:
        os.close(fd)
    for pid, argv in box.processes():
        if len(argv) < 2 or argv[1] != "zdb":
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    wait_for("the engine to be dead", lambda: not [1 for _, a in box.processes() if len(a) < 2 or a[1] != "zdb"], 30)
    subprocess.run(["umount", "-l", str(box.mount)], check=False)
    subprocess.run(["umount", str(disk)], check=True)
    loop_ext4(box.root / "image", disk, False)

    box.run("start")
    box.wait_ready()
    for name, digest in synced.items():
        path = box.mount / name
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise Failed(f"{name} was synced and is not what it was")
    after = sorted(p.name for p in box.mount.iterdir() if p.name.startswith("after-"))
    assert after == [f"after-{i:03d}" for i in range(len(after))], f"a hole in the order: {after}"
    for i, name in enumerate(after[:-1]):
        assert (box.mount / name).stat().st_size == 1000 + i, name
    box.run("destroy", "--confirm", "power")
    wait_for("nothing left", lambda: not box.processes(), 30)
    subprocess.run(["umount", str(disk)], check=False)
print(f"200 synced files whole; of 200 answered later the first {len(after)}")
