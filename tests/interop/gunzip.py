"""Decompresses stdin to stdout with Python's own gzip module."""

import gzip
import shutil
import sys

with gzip.open(sys.stdin.buffer) as packed:
    shutil.copyfileobj(packed, sys.stdout.buffer)
