"""YAML to JSON, by PyYAML: every document of standard input, as one list."""

import json
import sys

import yaml

print(json.dumps(list(yaml.safe_load_all(sys.stdin))))
