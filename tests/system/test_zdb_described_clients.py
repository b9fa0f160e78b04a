"""What zdbfs and zstor say to a zdb server, and what they make of the answers: their conversations, and their parsers with all
that these do not forgive, against the real server. Written after the description of both; the programs themselves do not run here.
"""
import pathlib
import re
import struct
import sys
import tempfile

from zdb_client import Server, ZdbError

QS = sys.argv[1]
NOTHING = b""


def key(number):
    return struct.pack("<Q", number)


def refused(client, *command):
    client.send(*command)
    r = client.reply()
    assert isinstance(r, ZdbError), f"{command[0]} was answered {r!r}"
    return str(r)


# -- zdbfs ------------------------------------------------------------------------------------------------------------------

class Zdbfs:
    """Three connections, one for each namespace. What is an assert here is the end of the program there."""
    NAMES = {"M": "zdbfs-meta", "D": "zdbfs-data", "T": "zdbfs-temp"}
    SECRET = "hello"

    def __init__(self, server, create):
        self.by = {letter: server.connect() for letter in self.NAMES}
        if create:
            for letter, c in self.by.items():
                self.create(c, self.NAMES[letter])
        for letter, c in self.by.items():
            assert c.call("SELECT", self.NAMES[letter], self.SECRET) == b"OK"

    def create(self, c, name):
        """Namespaces that are missing are made; those that are there are made what they must be."""
        c.send("NSINFO", name)
        info = c.reply()
        if isinstance(info, ZdbError):
            assert c.call("NSNEW", name) == b"OK"
            info = c.call("NSINFO", name)
        if b"mode: sequential" not in info:
            assert c.call("NSSET", name, "mode", "seq") == b"OK"
        assert c.call("NSSET", name, "public", "0") == b"OK"
        assert c.call("NSSET", name, "password", self.SECRET) == b"OK"
        assert self.yes(c.call("NSINFO", name), b"password")

    @staticmethod
    def after(info, entry):
        """It looks for the first place where the word stands, wherever that is, and reads two characters behind it."""
        place = info.find(entry)
        assert place >= 0, f"{entry} is not in {info}"
        return info[place + len(entry) + 2:]

    def number(self, info, entry):
        return int(re.match(rb"\d+", self.after(info, entry)).group())

    def yes(self, info, entry):
        return self.after(info, entry).startswith(b"yes")

    def set(self, letter, number, value):
        """0 is a new entry, and as an answer an error. Nil says that it is there already."""
        r = self.by[letter].call("SET", key(number) if number else NOTHING, value)
        if r is None:
            return number
        assert len(r) == 8, r
        return struct.unpack("<Q", r)[0]

    def get(self, letter, number):
        return self.by[letter].call("GET", key(number))

    def delete(self, letter, number):
        return self.by[letter].call("DEL", key(number))

    def header(self, letter):
        return b"ZDBFS" + letter.encode() + struct.pack("<HHQ", 1, 0, 10 << 30)

    def initialise(self):
        """The headers as entry 0, the root directory as entry 1. Returns which headers were new."""
        assert self.number(self.by["M"].call("INFO"), b"sequential_key_size") == 8
        assert self.by["T"].call("FLUSH") == b"OK"
        made = ""
        for letter, c in self.by.items():
            found = self.get(letter, 0)
            if found is None:
                assert c.call("SET", NOTHING, self.header(letter)) == key(0), "the header is not entry 0"
                made += letter
            else:
                assert found == self.header(letter), found
            if letter == "M" and self.get("M", 1) is None:
                assert self.set("M", 0, b"X") == 1, "the root directory is not entry 1"
                assert self.set("M", 1, b"root inode") == 1
        return made

    def release(self):
        """The flag in the header is taken back; where it was not set that is the same header, answered with nil."""
        assert self.by["M"].call("SET", key(0), self.header("M")) is None
        for c in self.by.values():
            c.close()


def with_zdbfs(tmp):
    server = Server(QS, tmp / "zdbfs")
    try:
        fs = Zdbfs(server, create=True)
        assert fs.initialise() == "MDT"

        # A file: a place for each block at once, the block later; its inode holds the ids.
        places = [fs.set("D", 0, NOTHING) for _ in range(40)]
        assert places == list(range(1, 41)), places
        blocks = {p: bytes([p]) * (128 << 10) for p in places}
        for p in places:
            assert fs.get("D", p) == b"", "an empty entry is there, and empty"
            assert fs.set("D", p, blocks[p]) == p
        inode = fs.set("M", 0, b"inode")
        assert inode == 2, inode  # an update takes no id of its own
        assert fs.set("M", inode, b"inode, with blocks") == inode
        assert fs.set("M", inode, b"inode, with blocks") == inode  # nil: written already

        # Random writes spill into the third namespace, are fetched back from there and deleted.
        spilled = [fs.set("T", 0, blocks[p]) for p in places[:8]]
        assert spilled == list(range(1, 9)), "0 would be an error for it"
        assert fs.set("T", spilled[0], blocks[20]) == spilled[0]
        assert fs.get("T", spilled[0]) == blocks[20]
        assert fs.delete("T", spilled[0]) == b"OK"
        assert fs.get("T", spilled[0]) is None
        assert refused(fs.by["T"], "DEL", key(spilled[0])) == "Key not found"
        assert refused(fs.by["T"], "SET", key(spilled[0]), b"x") == "Invalid key, only update authorized"

        # What statfs shows.
        info = fs.by["D"].call("NSINFO", "zdbfs-data")
        assert fs.number(info, b"entries") == 41, info
        assert fs.number(info, b"data_size_bytes") == 16 + 2 + 40 * (128 << 10), info
        assert fs.after(info, b"next_internal_id").startswith(b"0x2900000000000000\n"), info

        # A namespace that is locked is asked again and again; one that is full is told from all other errors by its text.
        admin = server.connect()
        assert admin.call("NSSET", "zdbfs-data", "lock", "1") == b"OK"
        assert refused(fs.by["D"], "SET", key(1), b"new").startswith("Namespace is temporarily locked")
        assert fs.get("D", 1) == blocks[1]
        assert admin.call("NSSET", "zdbfs-data", "lock", "0") == b"OK"
        assert admin.call("NSSET", "zdbfs-data", "maxsize", str(6 << 20)) == b"OK"
        for p in range(41, 60):
            if fs.by["D"].call("SET", NOTHING, NOTHING) != key(p):
                raise AssertionError(f"not entry {p}")
            fs.by["D"].send("SET", key(p), b"f" * (128 << 10))
            r = fs.by["D"].reply()
            if isinstance(r, ZdbError):
                assert str(r) == "No space left on this namespace", r
                break
        else:
            raise AssertionError("6 MiB never were full")
        assert fs.delete("D", 40) == b"OK", "a full namespace takes deletions"
        assert fs.set("D", p, b"f" * (128 << 10)) == p
        fs.release()

        # Killed and started again, as all three find it: headers, root and blocks there, what was spilled is not.
        server.kill()
        server = Server(QS, tmp / "zdbfs")
        fs = Zdbfs(server, create=False)
        assert refused(server.connect(), "SELECT", "zdbfs-temp") == "Namespace protected and private"
        assert refused(server.connect(), "SELECT", "zdbfs-temp", "goodbye") == "Access denied"
        assert fs.get("T", spilled[1]) == blocks[places[1]]
        assert fs.initialise() == "T"
        assert fs.get("T", spilled[1]) is None
        assert fs.set("T", 0, b"spilled") == 1
        assert fs.get("M", 1) == b"root inode" and fs.get("M", inode) == b"inode, with blocks"
        for place in places[:-1]:
            assert fs.get("D", place) == blocks[place], place
        Zdbfs(server, create=True).release()  # autons, with everything there
        # Public namespaces are not emptied, with a password or without.
        admin = server.connect()
        assert admin.call("NSSET", "zdbfs-temp", "public", "1") == b"OK"
        assert refused(fs.by["T"], "FLUSH") == "Flushing public namespace denied"
        fs.release()
        assert server.kill(15) == 0
    finally:
        server.kill()


# -- zstor ------------------------------------------------------------------------------------------------------------------

class Zstor:
    """One backend. Opened as it opens one: PING, SELECT with the password in clear, NSINFO, and the mode must be right."""
    U32, U64, I64 = (0, 1 << 32), (0, 1 << 64), (-(1 << 63), 1 << 63)
    NUMBERS = {"entries": U64, "data_size_bytes": U64, "data_limits_bytes": U64, "index_size_bytes": U64, "stats_index_io_errors": U32,
               "stats_index_io_error_last": I64, "stats_index_faults": U32, "stats_data_io_errors": U32, "stats_data_io_error_last": I64,
               "stats_data_faults": U32, "index_disk_freespace_bytes": U64, "data_disk_freespace_bytes": U64}
    SECRET = "a shard's secret"

    def __init__(self, server, name, mode):
        self.c, self.name = server.connect(), name
        assert self.c.call("PING") == b"PONG"
        assert self.c.call("SELECT", name, self.SECRET) == b"OK"
        assert self.info()["mode"] == mode

    def info(self):
        """Line by line, split at ': '; whatever is missing, or no number, or neither yes nor no, ends the daemon."""
        found = {}
        for line in self.c.call("NSINFO", self.name).decode().splitlines():
            line = line.strip()
            if not line.startswith("#"):
                parts = line.split(": ")
                found[parts[0]] = parts[1] if len(parts) > 1 else ""
        info = {"name": found["name"], "mode": {"userkey": "user", "sequential": "seq"}[found["mode"]]}
        for name in ("public", "password", "worm", "locked"):
            info[name] = {"yes": True, "no": False}[found[name]]
        for name, (least, end) in self.NUMBERS.items():
            assert re.fullmatch(r"-?\d+", found[name]), f"{name}: {found[name]!r}"
            info[name] = int(found[name])
            assert least <= info[name] < end, f"{name}: {found[name]}"
        return info

    def free(self):
        i = self.info()
        left = i["data_limits_bytes"] - i["data_size_bytes"] if i["data_limits_bytes"] else 1 << 64
        assert left >= 0, "it would wrap around"
        return min(left, i["data_disk_freespace_bytes"])

    def keys(self, command="SCAN"):
        """SCAN until the error. Every page is taken its first item of, unseen; every number must fit into 32 bits."""
        found, cursor = [], []
        while True:
            self.c.send(command, *cursor)
            r = self.c.reply()
            if isinstance(r, ZdbError):
                # Its library takes the first word as the code and the rest as the detail.
                assert str(r).split(" ", 1) == ["No", "more data"], r
                return found
            assert len(r) == 2 and len(r[0]) == 17, r[0]
            cursor = [r[0]]
            assert r[1], "an empty page: taking its first item would end the daemon"
            for item in r[1]:
                name, size, when = item
                assert isinstance(name, bytes) and 0 <= size < 1 << 32 and 0 < when < 1 << 32, item
                found.append(name)


def with_zstor(tmp):
    server = Server(QS, tmp / "zstor", "--admin", "boss", "--protect", "--compaction", "off")
    try:
        admin = server.connect()
        assert admin.call("AUTH", "boss") == b"OK"
        limit = 64 << 20
        for name, mode in (("shards", "seq"), ("meta", "user"), ("odd: name", "user")):
            assert admin.call("NSNEW", name) == b"OK"
            for what, value in (("mode", mode), ("password", Zstor.SECRET), ("public", "0"), ("maxsize", limit)):
                assert admin.call("NSSET", name, what, value) == b"OK"

        # A shard, in pieces of 2 MiB, each in an entry of its own.
        shards = Zstor(server, "shards", "seq")
        before = shards.info()
        assert (before["name"], before["entries"], before["data_size_bytes"], before["data_limits_bytes"]) == ("shards", 0, 0, limit)
        assert before["password"] and not before["public"] and not before["worm"] and not before["locked"]
        assert shards.free() <= limit
        piece = bytes(range(256)) * (8 << 10)
        ids = [shards.c.call("SET", NOTHING, piece[i:]) for i in range(5)]
        assert ids == [key(i) for i in range(5)], ids
        for i, k in enumerate(ids):
            assert shards.c.call("SELECT", "shards", Zstor.SECRET) == b"OK"  # ahead of every operation
            assert shards.c.call("GET", k) == piece[i:]
            assert shards.c.call("CHECK", k) == 1
            assert shards.c.call("LENGTH", k) == len(piece) - i
        assert shards.c.call("GET", key(99)) is None and shards.c.call("CHECK", key(99)) is None
        info = shards.info()
        assert info["entries"] == 5 and info["data_size_bytes"] == 5 * len(piece) - 10, info
        assert limit - shards.free() >= info["data_size_bytes"]
        assert shards.keys() == ids
        # The states that it shows.
        for what, shown in (("worm", "worm"), ("lock", "locked"), ("freeze", "locked"), ("public", "public")):
            assert admin.call("NSSET", "shards", what, "1") == b"OK"
            assert shards.info()[shown], what
            assert admin.call("NSSET", "shards", what, "0") == b"OK"
            assert not shards.info()[shown], what
        # One that is full is found by the SET that fails; the largest value there is goes through.
        for _ in range(6):
            shards.c.call("SET", NOTHING, b"x" * (8 << 20))
        assert refused(shards.c, "SET", NOTHING, b"x" * (8 << 20)) == "No space left on this namespace"
        assert 0 <= shards.free() < 8 << 20
        # Where it has no namespace of its own there is `default`, protected.
        assert refused(server.connect(), "SET", "k", "v") == "Namespace is in read-only mode"  # `default`, protected

        # Metadata: names that are paths, values that are replaced.
        meta = Zstor(server, "meta", "user")
        names = [f"/zstor-meta/meta/{i:032x}".encode() for i in range(2000)]
        for r, name in zip(meta.c.call_many(("SET", n, b"record of " + n) for n in names), names):
            assert r == name, r
        assert meta.c.call("SET", names[0], b"record of " + names[0]) is None
        assert meta.c.call("SET", names[0], b"another") == names[0]
        assert meta.c.call("GET", names[0]) == b"another"
        assert meta.keys() == names[1:] + names[:1], "in the order in which they were written last"
        # Nearly all gone: it takes longer than a page has to find anything, and still there is something in it.
        for r in meta.c.call_many(("SET", b"/zstor-meta/failures/%032x" % i, b"reason" * 20) for i in range(50000)):
            assert not isinstance(r, ZdbError), r
        for r in meta.c.call_many(("DEL", b"/zstor-meta/failures/%032x" % i) for i in range(50000)):
            assert r == b"OK", r
        assert meta.c.call("SET", b"/zstor-meta/meta/last", b"record") == b"/zstor-meta/meta/last"
        assert meta.keys() == names[1:] + names[:1] + [b"/zstor-meta/meta/last"]
        assert meta.keys("RSCAN") == [b"/zstor-meta/meta/last"] + names[:1] + names[:0:-1]
        # Nothing at all behind the cursor but what is dead: that is the end, not a page.
        assert meta.c.call("DEL", b"/zstor-meta/meta/last") == b"OK"
        assert meta.keys() == names[1:] + names[:1]
        assert meta.info()["entries"] == 2000

        # A name with its separator in it: the rest is cut, nothing else breaks.
        assert Zstor(server, "odd: name", "user").info()["name"] == "odd"
        assert refused(server.connect(), "NSINFO", "none") == "Namespace not found"
        for c, problem in ((("SELECT", "shards"), "Namespace protected and private"), (("SELECT", "shards", "wrong"), "Access denied"),
                           (("SELECT", "none", "x"), "Namespace not found")):
            assert refused(server.connect(), *c) == problem
        assert server.kill(15) == 0
    finally:
        server.kill()


with tempfile.TemporaryDirectory(prefix="qs-zdb-described-") as name:
    with_zdbfs(pathlib.Path(name))
    with_zstor(pathlib.Path(name))
print("zdbfs and zstor, as they are described, would have heard what they can use")
