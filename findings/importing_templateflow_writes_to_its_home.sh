#!/usr/bin/env bash
# Importing templateflow, even only the module that knows where its home is, unpacks a skeleton of
# 2,540 files, 2,300 of them empty, into that home (TEMPLATEFLOW_HOME, or ~/.cache/templateflow), and raises
# an OSError where that can't be done. One would guess that the import reads and writes nothing, that asking for the
# path (templateflow.conf.env.get_templateflow_home) is free of side effects, and that a home that
# can't be made is no trouble until a template is asked for. A program that only looks whether a template is in the
# cache stops on a cluster node with a read-only home; and a template "is there" as a file of 0 bytes.
#
# Version: templateflow 25.1.2. Source: templateflow/conf/__init__.py ("Populating a new TemplateFlow stub",
# a ResourceWarning, which Python hides by default). Seen on 2026-11-29.
#
# hetseg takes empty files for absent, and where the import raises, a line says so and the cohort's map
# is drawn on nilearn's MNI152.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  templateflow==25.1.2 acres==0.5.0 platformdirs==4.14.8
ask='from templateflow.conf.env import get_templateflow_home as home; print("home:", home())'

TEMPLATEFLOW_HOME="$work/home" "$work/venv/bin/python" -c "$ask"
files=$(find "$work/home" -type f | wc -l)
empty=$(find "$work/home" -type f -size 0 | wc -l)
echo "files that asking for the path made: $files, of 0 bytes: $empty"

touch "$work/file"
code=0
TEMPLATEFLOW_HOME="$work/file/home" "$work/venv/bin/python" -c "$ask" 2> "$work/said" || code=$?
echo "exit code below a regular file: $code, $(tail -n 1 "$work/said" | cut -d: -f1)"

[ "$empty" -gt 1000 ] && [ "$code" -ne 0 ] && grep -q '^NotADirectoryError' "$work/said"
