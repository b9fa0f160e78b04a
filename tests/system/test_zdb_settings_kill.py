"""SIGKILL of a zdb server while settings of namespaces are changed, 60 rounds: afterwards each setting is the one that was
acknowledged last, or one that was sent after it and not answered; all of them together are a state that there has been."""
import pathlib
import random
import re
import sys
import tempfile
import threading
import time

from harness import Failed
from zdb_client import Server, ended_after

ROUNDS = 60
SPACES = [b"alpha", b"beta", b"gamma"]
WINDOW = 8
qs = sys.argv[1]
seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
print(f"seed {seed}")
chance = random.Random(seed)


class Space:
    """One connection changes its settings in order, so after a death it is in one of the states from the last answer on."""

    def __init__(self, name):
        self.name = name
        self.states = [{"maxsize": 0, "password": "", "public": True, "worm": False}]
        self.acknowledged = self.sent = 0

    def next_change(self):
        what = chance.choice(["maxsize", "maxsize", "password", "password", "public", "worm"])
        if what == "maxsize":
            value = chance.randrange(1 << chance.randrange(1, 50))
            return what, str(value), value
        if what == "password":
            if chance.random() < 0.2:
                return what, "*", ""
            value = "".join(chance.choice("abcdef0123456789") for _ in range(chance.randrange(1, 64)))
            return what, value, value
        value = chance.random() < 0.5
        return what, "1" if value else "0", value

    def change(self, client):
        what, text, value = self.next_change()
        self.states.append({**self.states[-1], what: value})
        self.sent += 1
        client.send("NSSET", self.name, what, text)

    def answered(self):
        self.states.pop(0)
        self.acknowledged += 1

    def check(self, server):
        admin = server.connect()
        assert admin.call("MASTER") == b"Hello, master"  # who is one sees the password; its requests end with its number
        info = admin.call("NSINFO", self.name, "1").decode()
        admin.close()
        line = dict(l.split(": ", 1) for l in info.splitlines() if ": " in l)
        shown = {"maxsize": int(line["data_limits_bytes"]), "password": line["password_raw"].strip(), "public": line["public"] == "yes",
                 "worm": line["worm"] == "yes"}
        if shown not in self.states or line["password"] != ("yes" if shown["password"] else "no"):
            raise Failed(f"{self.name} is {shown}; it may be one of {self.states}")
        self.states = [shown]
        # And what it says is what it does.
        c = server.connect()
        c.send("SELECT", self.name)
        r = c.reply()
        locked = shown["password"] and not shown["public"]
        assert (str(r) == "Namespace protected and private") if locked else r == b"OK", r
        assert c.call("SELECT", self.name, *([shown["password"]] if shown["password"] else [])) == b"OK"
        c.send("DEL", b"no such key")
        assert str(c.reply()) == ("Cannot delete a key when namespace is in worm mode" if shown["worm"] else "Key not found"), shown
        c.close()


def work(spaces, client, stop):
    """Changes in a pipeline, of all namespaces by turns, until the connection ends."""
    pending = []
    try:
        while not stop.is_set():
            space = chance.choice(spaces)
            space.change(client)
            pending.append(space)
            while len(pending) >= WINDOW:
                r = client.reply()
                space = pending.pop(0)
                if r != b"OK":
                    raise Failed(f"{space.name}: {r!r}")
                space.answered()
    except OSError:
        pass
    except BaseException as e:  # noqa: B902 - shown by the main thread
        wrong.append(e)


def reload(client, stop):
    """What RELOAD puts in order it may not take from a change that is being written."""
    try:
        while not stop.is_set():
            for name in SPACES:
                if client.call("RELOAD", name) != b"OK":
                    raise Failed(f"RELOAD {name}")
    except OSError:
        pass
    except BaseException as e:  # noqa: B902 - shown by the main thread
        wrong.append(e)


wrong = []
begin = time.monotonic()
under_way = 0
with tempfile.TemporaryDirectory(prefix="qs-zdb-settings-") as tmp:
    spaces = [Space(n) for n in SPACES]
    server = Server(qs, pathlib.Path(tmp) / "data")
    with ended_after(lambda: server):
        client = server.connect()
        for s in spaces:
            assert client.call("NSNEW", s.name) == b"OK"
        for i in range(ROUNDS):
            stop = threading.Event()
            threads = [threading.Thread(target=work, args=(spaces, client, stop), daemon=True)]
            if i % 2:
                threads.append(threading.Thread(target=reload, args=(server.connect(), stop), daemon=True))
            for thread in threads:
                thread.start()
            # The moment; nothing is waited for.
            time.sleep(random.Random(seed + i).uniform(0.002, 0.06))
            assert server.alive(), "the server ended by itself"
            server.kill()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
            client.close()
            if wrong:
                raise wrong[0]
            under_way += sum(len(s.states) > 1 for s in spaces)
            server = Server(qs, pathlib.Path(tmp) / "data")
            text = server.log.read_text(errors="replace")
            assert "cannot be opened" not in text, text[-2000:]
            for s in spaces:
                s.check(server)
            client = server.connect()
            assert set(client.call("NSLIST")) == {b"default", *SPACES}
        # What is not known as an answer is not there as a file either: nothing half written is left beside the settings.
        left = sorted({p.name for p in (server.data / "namespaces").rglob("*") if not re.fullmatch(r"names|namespace|synced|[0-9a-f]{8}(\.data)?", p.name)})
        assert server.kill(15) == 0
acknowledged = sum(s.acknowledged for s in spaces)
assert not left, left
assert acknowledged > 200, f"only {acknowledged} changes were acknowledged"
assert under_way > ROUNDS // 2, f"nothing was under way in most rounds: {under_way}"
print(f"{ROUNDS} rounds in {time.monotonic() - begin:.0f} s: {acknowledged} acknowledged changes, {under_way} times one was under way")
