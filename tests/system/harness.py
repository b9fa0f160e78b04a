"""Runs the real qs in a directory of its own, for the system tests and the demo.

A Sandbox has its own HOME, XDG directories and local grid; whatever it started is found again by its environment and
directory in /proc and ended by pid, and whatever it mounted is unmounted, also when a test fails. Nothing waits by sleeping
a fixed time: wait_for() polls a condition up to a deadline and says what it saw last.
"""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

SKIP = 77


class Failed(Exception):
    pass


def skip(reason):
    print(f"SKIPPED: {reason}")
    sys.exit(SKIP)


def skip_part(reason):
    """The rest of the test goes on; scripts/test lists the reason."""
    print(f"skipped: {reason}", flush=True)


def need_fuse():
    if not os.path.exists("/dev/fuse"):
        skip("this machine has no /dev/fuse")
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        skip("neither root nor fusermount3: nothing can be mounted")


def wait_for(what, condition, timeout=60.0, interval=0.1):
    """Polls condition() until it returns something true; that is returned. `what` is for the message."""
    end = time.monotonic() + timeout
    last = None
    while True:
        try:
            last = condition()
        except (Failed, OSError, subprocess.SubprocessError, ValueError, KeyError) as e:
            last = e
        else:
            if last:
                return last
        if time.monotonic() > end:
            raise Failed(f"timed out after {timeout:.0f} s waiting for {what}; last seen: {str(last)[:2000]}")
        time.sleep(interval)


class Sandbox:
    def __init__(self, qs, name="demo", keep=False):
        self.qs = str(pathlib.Path(qs).resolve())
        self.exe = os.path.realpath(self.qs)
        self.name = name
        self.keep = keep
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="qs-"))
        self.work = self.root / "work"
        self.mount = self.root / "mnt"
        for d in (self.work, self.mount, self.root / "home"):
            d.mkdir()
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("QS_", "XDG_"))}
        self.env.update(
            HOME=str(self.root / "home"),
            XDG_STATE_HOME=str(self.root / "state"),
            XDG_CONFIG_HOME=str(self.root / "config"),
            XDG_CACHE_HOME=str(self.root / "cache"),
            QS_GRID_DIR=str(self.root / "grid"),
            NO_COLOR="1",
            QS_SANDBOX=str(self.root),
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None and kind is not SystemExit:
            self.show_logs()
        self.close()

    # -- running ------------------------------------------------------------------------------------------------------

    def run(self, *args, expect=0, input=None, timeout=300, env=None):
        """Runs qs; returns the CompletedProcess. `expect`: the exit code, a tuple of them, or None for any."""
        r = subprocess.run([self.qs, *map(str, args)], cwd=self.work, env={**self.env, **(env or {})}, input=input,
                           stdin=subprocess.DEVNULL if input is None else None, capture_output=True, text=True,
                           timeout=timeout)
        wanted = expect if isinstance(expect, tuple) else (expect,)
        if expect is not None and r.returncode not in wanted:
            raise Failed(f"qs {' '.join(map(str, args))}: exit {r.returncode}, expected {expect}\n{r.stdout}{r.stderr}")
        return r

    def json(self, *args, **kw):
        return json.loads(self.run(*args, "--json", **kw).stdout)

    def init(self, *extra, capacity="2GiB", nodes=6, data=4, parity=2, mount=True):
        args = ["init", "--name", self.name, "--capacity", capacity, "--data", data, "--parity", parity, "--nodes", nodes,
                "--interval", "1s", "--failed-after", "3s", "--replace-after", "4s", "--no-protect", "--yes"]
        if mount:
            args += ["--mount", self.mount]
        return self.run(*args, *extra)

    def apply(self, *extra, **kw):
        return self.run("apply", "--auto-approve", *extra, **kw)

    def status(self):
        return self.json("status")

    def wait_ready(self, timeout=120, redundancy=None):
        def ready():
            s = self.status()
            v = s["volume"]
            fine = s["state"] == "Ready" and v["bytes_at_risk"] == 0
            if redundancy is not None:
                fine = fine and v["redundancy_left_min"] >= redundancy
            if fine:
                return s
            raise Failed(json.dumps({k: s[k] for k in ("state", "conditions", "volume", "nodes")}))
        return wait_for("Ready with nothing at risk", ready, timeout, 0.2)

    def same_from_nodes(self, files):
        """`files`: path to the SHA-256 of what was written. Read back with every cache empty."""
        self.run("cache", "drop")
        for path, digest in files.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest, f"{path.name}, from the nodes"

    @property
    def spec(self):
        return self.work / "storage.yaml"

    def edit(self, old, new):
        text = self.spec.read_text()
        if old not in text:
            raise Failed(f"{old!r} is not in storage.yaml:\n{text}")
        self.spec.write_text(text.replace(old, new, 1))

    def listen(self, where):
        """status.listen is this, whatever it was."""
        lines = [line for line in self.spec.read_text().splitlines() if not line.startswith("status:")]
        self.spec.write_text("\n".join(lines) + f'\nstatus: {{listen: "{where}"}}\n')

    # -- processes ----------------------------------------------------------------------------------------------------

    def processes(self):
        """[(pid, argv)] of every qs of this sandbox: by the mark in its environment, or by its directory in its arguments."""
        found = []
        mark = f"QS_SANDBOX={self.root}".encode()
        for p in pathlib.Path("/proc").iterdir():
            if not p.name.isdigit() or int(p.name) == os.getpid():
                continue
            try:
                argv = (p / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                state = (p / "stat").read_text().rsplit(")", 1)[1].split()[0]
                here = str(self.root) in " ".join(argv) or mark in (p / "environ").read_bytes().split(b"\0")
                if argv and state != "Z" and here and os.path.realpath(p / "exe").split(" ")[0] == self.exe:
                    found.append((int(p.name), argv))
            except OSError:
                pass
        return found

    def engine_pid(self):
        engine = self.status()["engine"]
        if not engine:
            raise Failed("no engine runs")
        return engine["pid"]

    def zdb_pids(self):
        return {pid: argv for pid, argv in self.processes() if len(argv) > 1 and argv[1] == "zdb"}

    def mounts(self):
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return [f[4] for f in (l.split() for l in lines) if f[4].startswith(str(self.root))]

    def show_logs(self):
        logs = [p for d in ("state", "grid") if (self.root / d).exists() for p in (self.root / d).rglob("*.log")]
        for log in sorted(p for p in logs if "rows" not in p.parts):
            try:
                tail = log.read_text(errors="replace").splitlines()[-40:]
            except OSError:
                continue
            print(f"--- {log.relative_to(self.root)}", *tail, sep="\n", file=sys.stderr)

    def close(self):
        for _ in range(50):
            alive = self.processes()
            if not alive:
                break
            for pid, _argv in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
        for m in sorted(self.mounts(), reverse=True):
            subprocess.run(["umount", "-l", m], check=False)
        if not self.keep:
            shutil.rmtree(self.root, ignore_errors=True)


def same_tree(a, b):
    """'' if the trees are equal in names, types, contents and links, else what diff says."""
    r = subprocess.run(["diff", "-r", "--no-dereference", str(a), str(b)], capture_output=True, text=True)
    return (r.stdout + r.stderr) if r.returncode else ""


def copy_tree(source, target, limit):
    """Copies files, directories and symlinks of `source` until `limit` bytes; returns (files, links, bytes)."""
    files = links = total = 0
    for top, dirs, names in os.walk(source):
        dirs.sort()
        rel = os.path.relpath(top, source)
        here = os.path.join(target, rel) if rel != "." else str(target)
        os.makedirs(here, exist_ok=True)
        for d in list(dirs):
            path = os.path.join(top, d)
            if os.path.islink(path):
                os.symlink(os.readlink(path), os.path.join(here, d))
                links += 1
                dirs.remove(d)
        for n in sorted(names):
            path = os.path.join(top, n)
            if os.path.islink(path):
                os.symlink(os.readlink(path), os.path.join(here, n))
                links += 1
            elif os.path.isfile(path):
                size = os.path.getsize(path)
                if total + size > limit:
                    continue
                shutil.copyfile(path, os.path.join(here, n))
                files += 1
                total += size
    return files, links, total
