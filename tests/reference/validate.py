"""Validates JSON documents, one a line on stdin, against the schema that is named; prints what is wrong."""

import json
import sys

import jsonschema

schema = json.load(open(sys.argv[1], encoding="utf-8"))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
bad = 0
for line in sys.stdin:
    document = json.loads(line)
    for error in validator.iter_errors(document):
        bad += 1
        print(f"{document.get('command')}: {json.dumps(document)[:2000]}")
        for part in sorted(error.context or [error], key=lambda part: len(part.absolute_path))[-4:]:
            print(f"  at {list(part.absolute_path)}: {part.message[:400]}")
sys.exit(1 if bad else 0)
