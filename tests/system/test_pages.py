"""What the pages tell people to do: every storage.yaml in them and in examples/ validates, every `qs …` is a command line that this
qs takes, every unit starts the program where `make install` puts it, and every link leads somewhere."""
import os
import pathlib
import re
import shlex
import sys

from harness import Failed, Sandbox

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
wrong = []
counted = {"storage.yaml": 0, "command lines": 0, "units": 0, "links": 0}


def blocks(text):
    """[(kind, lines)] of code: fenced, or indented by four after an empty line."""
    found, inside, kind, lines, last = [], None, "", [], ""
    for line in text.splitlines():
        if inside == "fence":
            if line.strip() == "```":
                found.append((kind, lines))
                inside, lines = None, []
            else:
                lines.append(line)
        elif line.startswith("```"):
            inside, kind, lines = "fence", line[3:].strip(), []
        elif line.startswith("    ") and (inside == "indent" or not last.strip()):
            inside = "indent"
            lines.append(line[4:])
        elif inside == "indent":
            found.append(("", lines))
            inside, lines = None, []
        last = line
    return found + ([("", lines)] if lines else [])


def commands(text):
    """The words of every `qs …` that is written as one would type it; what stands for something else ends it."""
    typed = [m.group(1) for m in re.finditer(r"`(qs [^`]+)`", re.sub(r"(?ms)^```.*?^```$", "", text))]
    for _kind, lines in blocks(text):
        for line in lines:
            m = re.match(r"(?:\$ |ExecStart=/\S*/)?(?:\S.* && |[A-Z_]+=\S+ )*(qs\s.*)$", line)
            if m:
                typed.append(m.group(1))
    for line in typed:
        line = re.split(r"\s#|\s\|\s|\s&&|;|\s[12&]?>|\s<", line)[0].replace("COMMAND ", "")
        try:
            yield shlex.split(line)
        except ValueError:
            wrong.append(f"not a line for a shell: {line}")


class Asked:
    """The helps, each asked once."""

    def __init__(self, box):
        self.box, self.known = box, {}

    def of(self, path):
        if path not in self.known:
            r = self.box.run(*path, "--help", expect=None)
            self.known[path] = r.stdout if r.returncode == 0 and r.stdout else None
        return self.known[path]

    def flags(self, path):
        return set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", self.of(path)))

    def subcommands(self, path):
        """As the help lists them."""
        part = re.search(r"^Subcommands:\n(.*?)(?:\n\n|\Z)", self.of(path) or "", re.M | re.S)
        return set(re.findall(r"^  ([a-z-]+)", part.group(1), re.M)) if part else set()


# Not run, only looked up: they would begin to work, or change what is outside the sandbox.
ONLY_LOOKED_UP = {"zdb", "init", "run", "engine", "destroy", "start", "restart"}


def check_command(asked, box, page, words):
    path = ()
    rest = words[1:]
    if not rest or re.fullmatch(r"[A-Z…\[].*", rest[0]):
        return  # about qs, not a command
    while rest and rest[0] in asked.subcommands(path):
        path += (rest.pop(0),)
    if not path and not rest[0].startswith("-"):
        wrong.append(f"{page}: `{' '.join(words)}`: there is no command {rest[0]}")
        return
    counted["command lines"] += 1
    flags = asked.flags(path) | asked.flags(())
    for word in rest:
        if word.startswith("-") and word != "-" and word.split("=")[0] not in flags:
            wrong.append(f"{page}: `{' '.join(words)}`: {' '.join(('qs', *path))} has no {word}")
    # The rest is left to the program: what is no command line for it says so before anything else.
    stands_for = any(re.search(r"[…\[\]{}*$]|\.\.\.", w) or re.fullmatch(r"[A-Z_:]{2,}", w) for w in rest)
    if path and path[0] not in ONLY_LOOKED_UP and not stands_for and rest:
        r = box.run(*path, *rest, expect=None, timeout=60)
        if r.returncode == 64 and "--help" in r.stderr:
            wrong.append(f"{page}: `{' '.join(words)}`: {r.stderr.strip()}")


def check_yaml(box, where, text):
    """Everything that it takes from its surroundings is there."""
    env = {name: "x" * 12 for name in re.findall(r"\$\{env:([A-Z0-9_]+)\}", text)}
    for name in re.findall(r"\$\{file:~/([^}]+)\}", text):
        path = box.root / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 12 + "\n")
        path.chmod(0o600)
    box.spec.write_text(text)
    r = box.run("validate", box.spec, expect=None, env=env)
    box.spec.unlink()
    counted["storage.yaml"] += 1
    return r


with Sandbox(sys.argv[1], "pages") as box:
    asked = Asked(box)
    for page in PAGES:
        text, name = page.read_text(), str(page.relative_to(ROOT))
        # In the formats `qs …` is what is hashed, and the plan names commands that are missing.
        if "formats" not in page.parts and page.name != "plan.md":
            for words in commands(text):
                check_command(asked, box, name, words)
        for kind, lines in blocks(text):
            part = "\n".join(lines) + "\n"
            if part.startswith("version: 1\n"):
                r = check_yaml(box, name, part)
                if r.returncode != 0:
                    wrong.append(f"{name}: its storage.yaml: {r.stdout}{r.stderr}")
            for program in re.findall(r"^ExecStart=(\S+)", part, re.M):
                counted["units"] += 1
                if program.endswith("/qs") and program != "/usr/local/bin/qs":
                    wrong.append(f"{name}: a unit starts {program}; make install puts it into /usr/local/bin")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", re.sub(r"(?ms)^```.*?^```$", "", text)):
            if not re.match(r"[a-z]+:", target):
                counted["links"] += 1
                if not (page.parent / target).exists():
                    wrong.append(f"{name}: a link to {target}, which is not there")
        for target in re.findall(r"`((?:tests|examples|packaging|scripts|bench|docs)/[\w./-]+\.(?:py|yaml|md|env|in|txt|service))`", text):
            counted["links"] += 1
            if not (ROOT / target).exists():
                wrong.append(f"{name}: {target} is not there")
    for example in sorted((ROOT / "examples").glob("*.yaml")):
        r = check_yaml(box, example.name, example.read_text())
        refused = re.findall(r"error: (.*)", r.stdout + r.stderr)
        # threefold.yaml shows what is to come; all that may be wrong with it is that it is not there yet.
        not_yet = example.name == "threefold.yaml" and refused and all(e.startswith("this version does not do ") for e in refused)
        if r.returncode != 0 and not not_yet:
            wrong.append(f"examples/{example.name}: exit {r.returncode}: {r.stdout}{r.stderr}")
    for what in wrong:
        print(what)
    print(", ".join(f"{n} {what}" for what, n in counted.items()))
    if wrong:
        raise Failed(f"{len(wrong)} things in the pages are not so")
    # It is looked for at all.
    assert counted["storage.yaml"] >= 5 and counted["command lines"] > 60 and counted["units"] >= 1 and counted["links"] > 40, counted
