"""Runs the command `compress.export`."""

import runpy

runpy.run_module("compress.export", run_name="__main__", alter_sys=True)
