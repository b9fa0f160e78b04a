"""Machines that lack something or were tampered with: no FUSE, a full disk, a dead mount of somebody else, an engine of another
protocol, a node that refuses its password."""
import ctypes
import fcntl
import http.server
import json
import os
import pathlib
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading

from harness import Failed, Sandbox, need_fuse, skip, wait_for

need_fuse()
if os.geteuid() != 0:
    skip("needs root to make mounts")
QS = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)


def expect(box, code, words, *args, prefix=()):
    r = subprocess.run([*prefix, box.qs, *map(str, args)], cwd=box.work, env=box.env, stdin=subprocess.DEVNULL, capture_output=True,
                       text=True, timeout=120)
    text = (r.stdout + r.stderr).lower()
    if r.returncode != code or any(w.lower() not in text for w in words):
        raise Failed(f"qs {' '.join(map(str, args))}: exit {r.returncode}, expected {code} with {words}\n{r.stdout}{r.stderr}")
    return r


# -- no /dev/fuse: all the rest is done, exit 4 ---------------------------------------------------------------------------
with Sandbox(QS, "nofuse") as box:
    box.init()
    bare = "mount -t tmpfs none /dev && for d in 'null 1 3' 'zero 1 5' 'random 1 8' 'urandom 1 9' 'tty 5 0'; do set -- $d; mknod -m 666 /dev/$1 c $2 $3; done; exec \"$@\""
    bare = bare.replace('exec "$@"', 'exec "$QS_RUN" "$QS_COMMAND" --auto-approve')
    box.env.update(QS_RUN=box.qs, QS_COMMAND="apply")
    r = subprocess.run(["unshare", "-m", "sh", "-c", bare], cwd=box.work, env=box.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=120)
    if "unshare" in r.stderr and r.returncode == 1:
        skip(f"no mount namespaces here: {r.stderr.strip()}")
    assert r.returncode == 4 and "/dev/fuse" in r.stdout + r.stderr, f"exit {r.returncode}\n{r.stdout}{r.stderr}"
    s = box.status()
    assert len([n for n in s["nodes"] if n["state"] == "ready"]) == 6 and s["volume"]["open"] and not s["mount"]["mounted"], s
    box.run("destroy", "--confirm", "nofuse")

# -- a full disk: exit 1, nothing reserved ---------------------------------------------------------------------------------
with Sandbox(QS, "full") as box:
    small = box.root / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    (small / "ballast").write_bytes(b"x" * 65536)
    box.env["XDG_STATE_HOME"] = str(small / "state")
    box.init()
    expect(box, 1, ["space"], "apply", "--auto-approve")
    assert not box.zdb_pids()
    subprocess.run(["umount", "-l", str(small)], check=True)

# -- a dead mount of somebody else: exit 1, left alone -----------------------------------------------------------------------
with Sandbox(QS, "dead") as box:
    box.init()
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"foreign", str(box.mount).encode(), b"fuse.foreign", 0, options) != 0:
        skip(f"cannot make a FUSE mount: {os.strerror(ctypes.get_errno())}")
    os.close(fd)
    expect(box, 1, [str(box.mount)], "apply", "--auto-approve")
    assert str(box.mount) in pathlib.Path("/proc/self/mountinfo").read_text(), "a mount that is not ours was taken away"
    assert not box.zdb_pids()
    subprocess.run(["umount", "-l", str(box.mount)], check=True)

# -- an engine of another protocol: exit 3, "qs restart" ----------------------------------------------------------------------
with Sandbox(QS, "old") as box:
    box.init()
    state = box.root / "state" / "qs" / "old"
    state.mkdir(parents=True, mode=0o700)
    lock = open(state / "lock", "w")
    lock.write(str(os.getpid()))
    lock.flush()
    fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhxxxxqqixxxx", fcntl.F_WRLCK, 0, 0, 0, 0))

    class Old(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = json.dumps({"format_version": 1, "protocol": 99, "version": "9.9.9", "name": "old", "pid": os.getpid()}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def address_string(self):
            return "local"

        def log_message(self, *args):
            pass

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    server = Server(str(state / "control.sock"), Old)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    expect(box, 3, ["qs restart"], "apply", "--auto-approve")
    expect(box, 3, ["qs restart"], "status")
    server.shutdown()

# -- a node that refuses its password is lost, reason AccessDenied, and replaced ---------------------------------------------
with Sandbox(QS, "denied") as box:
    box.init()
    box.apply()
    (box.mount / "file").write_bytes(os.urandom(2 << 20))
    box.wait_ready()
    victim = box.status()["nodes"][0]
    host, port = victim["endpoint"].rsplit(":", 1)
    pid, argv = next((p, a) for p, a in box.zdb_pids().items() if victim["namespace"] in " ".join(a))
    admin = next(p for p in (box.root / "grid" / "nodes").rglob("admin*") if victim["namespace"] in str(p)).read_text().strip()

    def command(sock, *args):
        sock.sendall(b"*%d\r\n" % len(args) + b"".join(b"$%d\r\n%s\r\n" % (len(a), a) for a in map(str.encode, args)))
        return sock.recv(4096)

    with socket.create_connection((host, int(port))) as sock:
        assert command(sock, "AUTH", admin).startswith(b"+OK")
        assert command(sock, "NSSET", victim["namespace"], "password", "somebody-else").startswith(b"+OK")
    os.kill(pid, signal.SIGKILL)  # the open connection would go on; a new one is refused

    def lost():
        events = [json.loads(l) for l in box.run("events", "--json").stdout.splitlines()]
        return any(e["kind"] == "NodeLost" and e["subject"] == victim["id"] and "AccessDenied" in e["message"] for e in events)
    wait_for("the node to be lost for AccessDenied", lost, 60)
    wait_for("its replacement", lambda: len([n for n in box.status()["nodes"] if n["state"] == "ready" and n["id"] != victim["id"]]) == 6, 60)
    box.wait_ready(redundancy=2)
    box.run("destroy", "--confirm", "denied")
print("each machine got its own answer")
