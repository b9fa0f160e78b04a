"""SIGKILL of a zdb server at random moments of writing, 100 rounds: every acknowledged key is right afterwards.

Small data files, so that rotation, compaction and deletion of files happen all the time.
"""
import pathlib
import random
import sys
import tempfile
import time

from zdb_client import Server
from zdb_manifest import Manifest, write_in_background

ROUNDS = 100
qs = sys.argv[1]
seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
print(f"seed {seed}")
moments = random.Random(seed)
begin = time.monotonic()
with tempfile.TemporaryDirectory(prefix="qs-zdb-kill-") as tmp:
    manifest = Manifest(seed, keys=200, value_bytes=4000)
    server = None
    try:
        for i in range(ROUNDS):
            server = Server(qs, pathlib.Path(tmp) / "data", "--datasize", "512K", "--compaction", "1G",
                            *(["--sync"] if i % 4 == 3 else []))
            client = server.connect()
            manifest.check(client)
            thread, stop = write_in_background(manifest, client)
            # The moment; nothing is waited for. Some rounds are long enough for whole compactions.
            time.sleep(moments.uniform(0.2, 0.4) if i % 6 == 0 else moments.uniform(0.005, 0.08))
            assert server.alive(), "the server ended by itself"
            server.kill()
            thread.join(30)
            assert not thread.is_alive()
            client.close()
        server = Server(qs, pathlib.Path(tmp) / "data", "--datasize", "512K")
        client = server.connect()
        manifest.check(client)
        entries = client.call("DBSIZE")
        live = sum(1 for v in manifest.may_be.values() if v != {None})
        assert entries == live, f"{entries} entries, {live} expected"
        assert server.kill(15) == 0
    except BaseException:
        if server:
            print(server.log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        if server:
            server.kill()
        compactions = server.log.read_text(errors="replace").count(": compacted ")
    assert compactions > 0, "no compaction was under way in any round"
    assert manifest.acknowledged > 5000, f"only {manifest.acknowledged} writes were acknowledged"
print(f"{ROUNDS} rounds in {time.monotonic() - begin:.0f} s, {manifest.acknowledged} acknowledged writes, "
      f"{compactions} compactions, all right")
