"""No secret in ps, logs, events, plans or world-readable files; servers listen on loopback."""
import os
import pathlib
import re
import stat
import subprocess
import sys

from harness import Sandbox, need_fuse

need_fuse()
with Sandbox(sys.argv[1], "secret") as box:
    shown = box.init("--show-words")
    # A state directory that somebody made for us, readable by all: what we put into it is not.
    state = box.root / "state" / "qs" / "secret"
    state.mkdir(parents=True)
    state.chmod(0o755)
    phrase = next((box.root / "config").rglob("phrase")).read_text().split()
    assert len(phrase) == 24, len(phrase)
    # A value that only the environment knows: sealed in the state, shown nowhere, and there again without the variable.
    token = "tok-" + os.urandom(16).hex()
    box.edit("payment:\n", 'payment:\n  public_url: "${env:SOME_URL}"\n')
    box.env["SOME_URL"] = f"https://qs.example.org/{token}"
    box.apply()
    del box.env["SOME_URL"]
    box.run("restart")
    (box.mount / "plain.txt").write_text("the quick brown fox of the plaintext\n" * 50)
    box.wait_ready()
    # Three words in a row are enough to know a phrase by.
    needles = {token.encode()} | {" ".join(phrase[i:i + 3]).encode() for i in range(0, 22)}
    admin = [p.read_bytes().strip() for p in (box.root / "grid").rglob("admin*") if p.is_file()]
    needles |= {a for a in admin if len(a) > 16}
    assert admin, "the admin password files were not found: has the layout changed?"
    # The nodes' own passwords, as their servers keep them: in hex, and as text where they are text.
    kept = []
    for path in (box.root / "grid").rglob("*"):
        if path.is_file() and path.stat().st_size < 4096:
            kept += [bytes.fromhex(m.decode()) for m in re.findall(rb"^password ([0-9a-f]{16,})$", path.read_bytes(), re.M)]
    assert len(set(kept)) >= 6, "the nodes' passwords were not found: has the layout changed?"
    needles |= set(kept) | {k.hex().encode() for k in kept}
    texts = {"plan": box.run("diff", env={"SOME_URL": "https://qs.example.org/other"}).stdout.encode(), "events": box.run("events").stdout.encode(), "status": box.run("status", "--json").stdout.encode(),
             "nodes": box.run("nodes", "--json").stdout.encode(), "ps": subprocess.run(["ps", "auxww"], capture_output=True).stdout}
    # As long as the engine lives it may have been started with the variable; argv is what everybody sees.
    for pid, argv in box.processes():
        texts[f"argv of {pid}"] = "\0".join(argv).encode()
    for log in box.root.rglob("*.log*"):
        texts[str(log)] = log.read_bytes()
    for where, text in texts.items():
        for needle in needles:
            assert needle not in text, f"a secret stands in {where}"
    secret_files = 0
    for path in box.root.rglob("*"):
        if path.is_symlink() or not path.is_file() or box.mount in path.parents or box.work in path.parents:
            continue
        content = path.read_bytes() if path.stat().st_size < 64 << 20 else b""
        if any(n in content for n in needles):
            secret_files += 1
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} holds a secret and is {oct(path.stat().st_mode)}"
    assert secret_files >= 1
    for path in state.rglob("*"):
        assert path.is_symlink() or stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, f"{path} is {oct(path.stat().st_mode)}"
    # What leaves this machine is ciphertext.
    for path in (box.root / "grid").rglob("*"):
        if path.is_file():
            assert b"quick brown fox" not in path.read_bytes(), f"{path} holds plaintext"
    ours = {str(pid) for pid, _ in box.processes()}
    listening = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout
    for line in listening.splitlines():
        if any(f"pid={p}," in line for p in ours):
            assert line.split()[3].startswith(("127.", "[::1]")), line
    box.run("destroy", "--confirm", "secret")
print("no secret out of place")
