"""Imports the packages that it is given, so that a broken environment is told apart from a failing test."""

import importlib
import sys

for name in sys.argv[1:]:
    importlib.import_module(name)
print("all there")
