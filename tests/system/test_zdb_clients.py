#!/usr/bin/env python3
"""Clients that were written for redis, unchanged, against qs zdb: redis-cli, redis-benchmark, a hiredis program; and the
server as a service: its flags, its socket, its secrets, in the background, and how small it is."""
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from harness import Sandbox, skip, skip_part, wait_for

if len(sys.argv) != 2:
    sys.exit("usage: test_zdb_clients.py PATH_OF_QS")
for tool in ("redis-cli", "redis-benchmark"):
    if not shutil.which(tool):
        skip(f"{tool} is not installed (redis-tools)")


class Server:
    """qs zdb on a port the kernel gives."""

    def __init__(self, box, name, *flags, env=None):
        self.box, self.data = box, box.root / name
        self.data.mkdir(mode=0o700)
        self.started = time.monotonic()
        self.log = open(box.root / f"{name}.log", "wb")
        self.process = subprocess.Popen([box.qs, "zdb", "--data", self.data, "--port", "0", *map(str, flags)],
                                        env={**box.env, **(env or {})}, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        endpoint = self.data / "endpoint"
        text = wait_for("the endpoint", lambda: endpoint.exists() and endpoint.read_text().strip(), 20, 0.005)
        self.host, port = text.rsplit(":", 1)
        self.port = int(port)

    def cli(self, *args, input=None, socket=None):
        """What redis-cli prints, as bytes without the line end."""
        where = ["-s", str(socket)] if socket else ["-h", self.host, "-p", str(self.port)]
        r = subprocess.run(["redis-cli", *where, *args], input=input, capture_output=True, timeout=60)
        assert r.returncode in (0, 1), r
        return r.stdout.removesuffix(b"\n")

    def stop(self, code=0):
        self.process.send_signal(signal.SIGTERM)
        got = self.process.wait(30)
        assert got == code, f"the server ended with {got}"

    def status(self, line):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{line}:\s+(\d+)", text, re.M).group(1))


def with_redis_cli(box):
    s = Server(box, "cli", "--socket", box.root / "zdb.sock", "--dualnet")
    assert s.cli("PING") == b"PONG"
    assert s.cli("PING", socket=box.root / "zdb.sock") == b"PONG"
    assert s.cli("SET", "hello", "world") == b"hello"
    assert s.cli("SET", "hello", "world") == b"", "the same again is nil"
    assert s.cli("GET", "hello") == b"world"
    value = bytes(range(256)) * 1000
    assert s.cli("-x", "SET", "binary", input=value) == b"binary"
    assert s.cli("GET", "binary") == value
    assert s.cli("DEL", "hello") == b"OK"
    assert s.cli("DEL", "hello").strip() == b"Key not found"
    assert s.cli("EXISTS", "binary") == b"1"
    assert s.cli("NSNEW", "space") == b"OK"
    assert s.cli("NSLIST") == b"default\nspace"
    info = s.cli("INFO").decode()
    assert "server_name: 0-db (zdb)" in info and "extensions: SYNC SETNX GETRANGE" in info, info
    # Several commands on one connection, as a script pipes them.
    out = s.cli(input=b"SELECT space\nSET a 1\nDBSIZE\nSELECT default\nDBSIZE\nSYN\n")  # redis-cli keeps "SYNC" for itself
    assert out.split(b"\n") == [b"OK", b"a", b"1", b"OK", b"1", b"OK"], out
    # What interactive clients ask first is refused, and they go on.
    assert s.cli("COMMAND", "DOCS").strip() == b"Command not supported"
    assert s.cli("CONFIG", "GET", "save").strip() == b"Command not supported"
    s.stop()
    s.log.close()


def with_redis_benchmark(box):
    s = Server(box, "bench")
    for pipeline in (1, 16):
        r = subprocess.run(["redis-benchmark", "-h", s.host, "-p", str(s.port), "-t", "ping_mbulk,set,get", "-n", "5000", "-c", "50", "-P",
                            str(pipeline), "-d", "300", "-r", "1000", "--csv"], capture_output=True, text=True, timeout=120)
        assert r.returncode == 0, r
        done = {line.split(",")[0].strip('"'): float(line.split(",")[1].strip('"')) for line in r.stdout.splitlines()
                if re.match(r'^"(PING|SET|GET)', line)}
        assert {"PING_MBULK", "SET", "GET"} <= set(done) and all(v > 0 for v in done.values()), r.stdout + r.stderr
        assert "Error" not in r.stdout, r.stdout
    # -r 1000 asks for that many different keys at most; nothing else was stored.
    assert 900 < int(s.cli("DBSIZE")) <= 1000
    s.stop()


def with_hiredis(box):
    compiler = shutil.which("cc")
    if not compiler or subprocess.run(["pkg-config", "--exists", "hiredis"]).returncode != 0:
        skip_part("hiredis, without a compiler or libhiredis-dev")
        return False
    program = box.root / "zdb_hiredis"
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "hiredis"], capture_output=True, text=True, check=True).stdout.split()
    source = pathlib.Path(__file__).with_name("zdb_hiredis.c")
    subprocess.run([compiler, "-std=gnu99", "-Wall", "-Werror", "-o", program, source, *flags], check=True)
    s = Server(box, "hiredis")
    r = subprocess.run([program, s.host, str(s.port)], capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r
    s.stop()
    return True


def challenge_answer(s, password):
    """AUTH with a challenge, as programs do that do not send passwords: both on one connection."""
    p = subprocess.Popen(["redis-cli", "-h", s.host, "-p", str(s.port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(b"AUTH SECURE CHALLENGE\n")
    p.stdin.flush()
    nonce = p.stdout.readline().strip()
    assert re.fullmatch(rb"[0-9a-f]{16}", nonce), nonce
    answer = hashlib.sha1(nonce + b":" + password).hexdigest()
    p.stdin.write(f"AUTH SECURE {answer}\nNSNEW secured\nAUTH SECURE {answer}\n".encode())
    out, _ = p.communicate(timeout=30)
    return out.split(b"\n")


def with_secrets(box):
    password = b"not for everybody"
    secret = box.root / "admin"
    secret.write_bytes(password + b"\n")
    secret.chmod(0o600)
    for name, flags, env in (("file", ["--admin-file", secret], {}), ("env", [], {"QS_ZDB_ADMIN": password.decode()})):
        s = Server(box, f"secret-{name}", *flags, "--hide-namespaces", env=env)
        argv = pathlib.Path(f"/proc/{s.process.pid}/cmdline").read_bytes()
        assert password not in argv
        assert s.cli("NSNEW", "n").strip() == b"Permission denied"
        lines = challenge_answer(s, password)
        assert lines[:2] == [b"OK", b"OK"], lines
        assert b"No CHALLENGE requested" in lines[2], "a challenge was good for two"
        assert s.cli("NSLIST") == b"default", "a name was shown"
        s.stop()
        assert password not in (box.root / f"secret-{name}.log").read_bytes()
        for f in s.data.rglob("*"):
            assert f.is_dir() or password not in f.read_bytes(), f
            assert f.stat().st_mode & 0o077 == 0, f
    r = subprocess.run([box.qs, "zdb", "--data", box.root / "none", "--protect"], env=box.env, capture_output=True, text=True)
    assert r.returncode == 64 and "--protect needs an admin password" in r.stderr, r


def in_the_background(box):
    data, log = box.root / "behind", box.root / "behind.log"
    r = subprocess.run([box.qs, "zdb", "--data", data, "--port", "0", "--background", "--logfile", log, "--log-format", "json", "--metrics",
                        "127.0.0.1:0"], env=box.env, capture_output=True, text=True, timeout=30)
    assert r.returncode == 0, r
    host, port = (data / "endpoint").read_text().strip().rsplit(":", 1)  # it listens already when the command is back
    pong = subprocess.run(["redis-cli", "-h", host, "-p", port, "PING"], capture_output=True, timeout=30).stdout
    assert pong == b"PONG\n", pong
    # A second one on the same directory says so, and its starter hears it.
    again = subprocess.run([box.qs, "zdb", "--data", data, "--port", "0", "--background"], env=box.env, capture_output=True, text=True, timeout=30)
    assert again.returncode == 5, again
    where = wait_for("the log", lambda: re.search(r"http://[^/]+/metrics", log.read_text())).group(0)
    text = urllib.request.urlopen(where, timeout=10).read().decode()
    assert "\nzdb_clients 0\n" in text or "\nzdb_clients 1\n" in text, text
    assert 'zdb_command_seconds_count{command="PING"} 1' in text, text
    pid = next(p for p, argv in box.processes() if str(data) in argv)
    os.kill(pid, signal.SIGTERM)
    wait_for("its end", lambda: not os.path.exists(f"/proc/{pid}"), 30)
    dump = box.run("zdb", "--data", data, "--dump").stdout
    assert "namespace default: 0 entries, mode user" in dump, dump


def log_as_json(box):
    """Every line of the log is an object with time, level and message, also where it tells names that clients chose."""
    log = box.root / "json.log"
    s = Server(box, "json", "--log-format", "json", "--logfile", log, "--admin", "boss", "--metrics", "127.0.0.1:0")
    names = [b"plain", "gr\u00f6\u00dfe \u20ac \U0001f600".encode(), b'quote " backslash \\', b"line\nend\ttab\x01\x7f", b"bytes \xff\xfe\x80",
             b"cut short \xc3", b"cut short \xf0\x9f\x98", b"too long \xc0\xaf \xe0\x80\x80", b"surrogate \xed\xa0\x80", b"too high \xf4\x90\x80\x80"]
    with socket.create_connection((s.host, s.port), 30) as c:
        replies = c.makefile("rb")
        for words in [[b"AUTH", b"boss"], *([b"NSNEW", n] for n in names), *([b"NSDEL", n] for n in names), [b"AUTH", b"wrong"]]:
            c.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            reply = replies.readline()
            assert reply == (b"-Access denied\r\n" if words[1] == b"wrong" else b"+OK\r\n"), (words, reply)
    s.stop()
    lines = [json.loads(line) for line in log.read_bytes().decode("utf-8", "strict").splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}", line["time"]), line
        assert line["level"] in ("debug", "info", "warning", "error"), line
        assert line["component"] == "zdb" and line["message"], line
    said = [line["message"] for line in lines]
    for name in names[:4]:  # what is text is told as it is
        assert f"namespace {name.decode()} made" in said, said
    assert r"namespace bytes \xff\xfe\x80 made" in said and r"namespace cut short \xc3 deleted" in said, said
    assert sum(line["message"].endswith(" made") for line in lines) == len(names), said
    assert {"info", "warning"} == {line["level"] for line in lines}, lines  # --admin PASSWORD is warned about
    assert said[-1] == "stopped", said


def how_small(box):
    # From the start of the process to an answer, in an empty directory. The machine does other things as well: the best of five.
    times = []
    for i in range(5):
        s = Server(box, f"small{i}")
        with socket.create_connection((s.host, s.port), 30) as c:
            c.sendall(b"*1\r\n$4\r\nPING\r\n")
            assert c.recv(100) == b"+PONG\r\n"
        times.append(time.monotonic() - s.started)
        if i < 4:
            s.stop()
    assert min(times) < 0.05, f"answers {[round(t * 1000) for t in times]} ms after its start"
    tasks = len(os.listdir(f"/proc/{s.process.pid}/task"))
    assert tasks <= 2, f"{tasks} threads"
    s.cli("SET", "k", "v")
    s.cli("SYN")
    assert len(os.listdir(f"/proc/{s.process.pid}/task")) == 2, "one for clients, one for the disk"
    idle = s.status("RssAnon")
    assert idle < 8 << 10, f"{idle} KiB"
    # A load leaves nothing behind once it is over.
    subprocess.run(["redis-benchmark", "-h", s.host, "-p", str(s.port), "-t", "set,get", "-n", "2000", "-c", "50", "-P", "4", "-d", "65536", "-q"],
                   capture_output=True, timeout=120, check=True)
    after = wait_for("memory to be given back", lambda: (n := s.status("RssAnon")) < (16 << 10) and n, 30)
    print(f"start to answer: {min(times) * 1000:.1f} ms; RssAnon: {idle} KiB idle, {after} KiB after a load")
    s.stop()


with Sandbox(sys.argv[1]) as box:
    with_redis_cli(box)
    with_redis_benchmark(box)
    hiredis = with_hiredis(box)
    with_secrets(box)
    in_the_background(box)
    log_as_json(box)
    how_small(box)
print("redis-cli, redis-benchmark" + (" and hiredis" if hiredis else "") + " work unchanged")
