"""A zdb server in a process of its own and a RESP client, for the system tests."""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

from harness import Failed


class ZdbError(Exception):
    """The server answered with an error line."""


class Client:
    def __init__(self, address, timeout=20):
        host, port = address.rsplit(":", 1)
        self.s = socket.create_connection((host, int(port)), timeout=timeout)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.f = self.s.makefile("rb", 1 << 16)

    @staticmethod
    def encode(*args):
        parts = [b"*%d\r\n" % len(args)]
        for a in args:
            a = a if isinstance(a, bytes) else str(a).encode()
            parts.append(b"$%d\r\n%s\r\n" % (len(a), a))
        return b"".join(parts)

    def send(self, *args):
        self.s.sendall(self.encode(*args))

    def reply(self):
        """bytes, int, None or a list; an error line is returned as a ZdbError, not raised."""
        line = self.f.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest
        if kind == b"-":
            return ZdbError(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"$":
            n = int(rest)
            if n < 0:
                return None
            body = self.f.read(n + 2)
            if len(body) != n + 2:
                raise ConnectionError("the server closed the connection")
            return body[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        raise Failed(f"not RESP: {line!r}")

    def call(self, *args):
        self.send(*args)
        r = self.reply()
        if isinstance(r, ZdbError):
            raise r
        return r

    def call_many(self, commands, window=64):
        """Pipelined; the replies in order, errors among them."""
        replies = []
        pending = 0
        for c in commands:
            self.send(*c)
            pending += 1
            if pending >= window:
                replies.append(self.reply())
                pending -= 1
        return replies + [self.reply() for _ in range(pending)]

    def close(self):
        self.f.close()
        self.s.close()


class Server:
    def __init__(self, qs, data, *flags, log=None):
        self.data = pathlib.Path(data)
        self.data.mkdir(exist_ok=True)
        endpoint = self.data / "endpoint"
        endpoint.unlink(missing_ok=True)
        self.log = pathlib.Path(log or f"{self.data}.log")
        env = {k: v for k, v in os.environ.items() if not k.startswith("QS_ZDB")}
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen([qs, "zdb", "--data", str(self.data), "--port", "0", *flags], env=env,
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        end = time.monotonic() + 20
        while not endpoint.exists() or not (text := endpoint.read_text()).endswith("\n"):
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise Failed(f"qs zdb did not start:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.002)
        self.address = text.strip()

    def connect(self, **kw):
        return Client(self.address, **kw)

    def alive(self):
        return self.process.poll() is None

    def kill(self, number=signal.SIGKILL):
        """Sends the signal to this one process and waits for its end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)


@contextlib.contextmanager
def ended_after(server):
    """`server()`: the one that runs then, which tests start anew. Killed at the end; its log is shown if the test fails."""
    try:
        yield
    except BaseException:
        print(server().log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        server().kill()
