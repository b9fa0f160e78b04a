"""What a writer knows about a zdb server that may end at any moment: for every key which values it may have.

One connection answers in order, so of the commands without an answer any number of the first ones may have happened.
"""
import random
import threading

from harness import Failed
from zdb_client import ZdbError

GONE = None  # the key does not exist


class Manifest:
    def __init__(self, seed, keys=300, value_bytes=6000):
        self.random = random.Random(seed)
        self.keys = keys
        self.value_bytes = value_bytes
        self.may_be = {}  # key -> set of values; one of them alone: it was acknowledged
        self.acknowledged = 0
        self.serial = 0
        self.cut = False  # set before a power cut: what is answered from then on promises nothing

    def next_command(self):
        key = b"key%d" % self.random.randrange(self.keys)
        if self.random.random() < 0.1:
            return (b"DEL", key), key, GONE
        self.serial += 1
        value = b"%s %d " % (key, self.serial) + b"v" * self.random.randrange(self.value_bytes)
        return (b"SET", key, value), key, value

    def write(self, client, stop, window=16, synced=None):
        """Until `stop` is set or the connection ends. `synced`: called after an answered SYNC, which is sent now and then."""
        pending = []
        refused = 0

        def answer():
            nonlocal refused
            key, value = pending[0]
            r = client.reply()
            pending.pop(0)
            if isinstance(r, ZdbError) and str(r) != "Key not found":
                refused += 1  # not stored; but a sync that failed may have left it there
                return
            if refused or self.cut:  # answered from a memory that may know more than the disk, or with nothing to sync
                return
            if key is None:
                value()
                return
            self.acknowledged += 1
            self.may_be[key] = {value}
            for later_key, later in pending:  # sent after it, not answered
                if later_key == key:
                    self.may_be[key].add(later)

        try:
            while not stop.is_set() and refused < 50:
                command, key, value = self.next_command()
                self.may_be.setdefault(key, {GONE}).add(value)
                pending.append((key, value))
                client.send(*command)
                if synced and self.random.random() < 0.02:
                    pending.append((None, synced()))
                    client.send("SYNC")
                while len(pending) >= window:
                    answer()
            while pending:
                answer()
        except OSError:
            pass
        return refused

    def check(self, client):
        """Every key has a value that it may have; from now on it has that one."""
        keys = list(self.may_be)
        for key, got in zip(keys, client.call_many([("GET", k) for k in keys])):
            if isinstance(got, ZdbError):
                raise Failed(f"{key}: {got}")
            if got not in self.may_be[key]:
                shown = [v if v is None else v[:40] for v in self.may_be[key]]
                raise Failed(f"{key} is {got if got is None else got[:40]!r}, not one of {shown}")
            self.may_be[key] = {got}


def write_in_background(manifest, client, **kw):
    """(thread, stop): the writer in a thread of its own."""
    stop = threading.Event()
    thread = threading.Thread(target=manifest.write, args=(client, stop), kwargs=kw, daemon=True)
    thread.start()
    return thread, stop
