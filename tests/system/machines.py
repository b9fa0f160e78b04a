"""Machines of one's own for the system tests: each is a network namespace with one link to this one, running `qs zdb` with an
administrator's password. Without the right to make namespaces: server() runs on loopback instead.
"""
import os
import shutil
import signal
import socket
import subprocess

from harness import Failed, skip, wait_for


def need_netns():
    if os.geteuid() != 0 or not shutil.which("ip"):
        skip("network namespaces need root and iproute2")
    name = f"qsprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        skip("this machine does not let us make a network namespace")
    subprocess.run(["ip", "netns", "del", name], check=False)


def ip(*args, check=True):
    r = subprocess.run(["ip", *map(str, args)], capture_output=True, text=True)
    if check and r.returncode != 0:
        raise Failed(f"ip {' '.join(map(str, args))}: {r.stderr}")


class Client:
    """The least of a zdb client: a command, its reply as Python values."""

    def __init__(self, host, port, password=None):
        self.socket = socket.create_connection((host, port), 5)
        self.file = self.socket.makefile("rb")
        if password:
            assert self.ask("AUTH", password) == "OK"

    def ask(self, *words):
        out = b"*%d\r\n" % len(words)
        for w in words:
            w = w.encode() if isinstance(w, str) else w
            out += b"$%d\r\n%s\r\n" % (len(w), w)
        self.socket.sendall(out)
        return self.reply()

    def reply(self):
        line = self.file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise Failed(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            if rest == b"-1":
                return None
            data = self.file.read(int(rest) + 2)[:-2]
            return data.decode(errors="replace")
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise Failed(f"no reply of zdb: {line!r}")

    def close(self):
        self.file.close()
        self.socket.close()


class Machine:
    def __init__(self, box, name, number, password, netns=True):
        self.box, self.name, self.password = box, name, password
        self.data = box.root / f"machine-{name}"
        self.data.mkdir()
        self.admin = box.root / f"admin-{name}"
        self.admin.write_text(password + "\n")
        self.admin.chmod(0o600)
        self.server = None
        self.port = 9900
        self.netns = None
        if not netns:
            self.address, self.port = "127.0.0.1", 0
            return
        tag = f"{os.getpid() % 100000}{number}"
        self.netns, self.link = f"qs{tag}", f"qsv{tag}"
        subnet = f"10.{64 + os.getpid() % 64}.{number}"
        self.address = f"{subnet}.2"
        ip("netns", "add", self.netns)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        ip("addr", "add", f"{subnet}.1/24", "dev", self.link)
        ip("-n", self.netns, "addr", "add", f"{subnet}.2/24", "dev", "eth0")
        ip("-n", self.netns, "link", "set", "lo", "up")
        self.plug(True)

    def plug(self, on):
        """The network cable."""
        ip("link", "set", self.link, "up" if on else "down")
        ip("-n", self.netns, "link", "set", "eth0", "up" if on else "down")

    def start(self, *extra):
        inside = ["ip", "netns", "exec", self.netns] if self.netns else []
        log = open(self.box.root / f"machine-{self.name}.log", "ab")
        self.server = subprocess.Popen([*inside, self.box.qs, "zdb", "--data", str(self.data), "--listen", self.address,
                                        "--port", str(self.port), "--admin-file", str(self.admin), "--protect", *extra],
                                       env=self.box.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if self.port == 0:
            def told():
                return int((self.data / "endpoint").read_text().strip().rsplit(":", 1)[1])
            self.port = wait_for(f"the port of {self.name}", told, 20)
        wait_for(f"{self.name} to listen", lambda: self.ask("PING") == "PONG", 20)
        return self

    def stop(self, how=signal.SIGTERM):
        if self.server and self.server.poll() is None:
            self.server.send_signal(how)
            self.server.wait(20)
        self.server = None

    def ask(self, *words):
        c = Client(self.address, self.port, self.password)
        try:
            return c.ask(*words)
        finally:
            c.close()

    def namespaces(self):
        return [n for n in self.ask("NSLIST") if n != "default"]

    def nsinfo(self, name):
        return dict(l.split(": ", 1) for l in self.ask("NSINFO", name).splitlines() if ": " in l)

    def remove(self):
        self.stop(signal.SIGKILL)
        if self.netns:
            ip("link", "del", self.link, check=False)
            ip("netns", "del", self.netns, check=False)

    def entry(self):
        return (f'{{name: {self.name}, address: "{self.address}:{self.port}", country: Belgium, '
                f'password: "${{env:{self.name.upper()}_ADMIN}}"}}')


class Lab:
    """Machines that go when the test ends, whatever happened; to be entered inside a Sandbox."""

    def __init__(self, box):
        self.box = box
        self.machines = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for m in self.machines.values():
            m.remove()

    def add(self, name, netns=True):
        number = len(self.machines) + 1
        password = f"secret-of-{name}-{os.urandom(8).hex()}"
        m = Machine(self.box, name, number, password, netns)
        self.machines[name] = m
        self.box.env[f"{name.upper()}_ADMIN"] = password
        return m.start()

    def __getitem__(self, name):
        return self.machines[name]

    def by_namespace(self):
        """{namespace: machine name} of every namespace but `default`, on those that run."""
        return {ns: m.name for m in self.machines.values() if m.server for ns in m.namespaces()}
