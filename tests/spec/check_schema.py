"""Checks the JSON Schema of storage.yaml: check_schema.py SCHEMA SOURCE_DIR. Exit 0 = all is as it should be."""
import glob
import json
import os
import sys

import jsonschema
import yaml

schema = json.load(open(sys.argv[1], encoding="utf-8"))
root = sys.argv[2]
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
golden = os.path.join(root, "tests/golden/spec")
wrong = 0


class strict(yaml.SafeLoader):
    """YAML 1.2's booleans only, as qs reads them: `no` is a word."""


strict.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in rules if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def problems(path):
    return [e.message for e in validator.iter_errors(yaml.load(open(path, encoding="utf-8-sig"), Loader=strict))]


good = sorted(glob.glob(golden + "/good-*.yaml") + glob.glob(golden + "/warn-*.yaml") + glob.glob(root + "/examples/*.yaml"))
for path in good:
    for problem in problems(path):
        print(path, "should be accepted:", problem)
        wrong += 1
for name in ("unknown-keys", "kinds", "missing-all", "missing-capacity", "ranges", "sizes", "durations", "booleans",
             "choices", "name-capitals", "grid-names", "grid-two-in-one", "parity-zero", "version", "money"):
    path = f"{golden}/bad-{name}.yaml"
    if not problems(path):
        print(path, "should be refused")
        wrong += 1
if len(good) < 15:
    print("too few good files:", len(good))
    wrong += 1
sys.exit(1 if wrong else 0)
