#!/bin/sh
# SAMSEG's own command for the intracranial volume, `sbtiv FILE`, fails for every file, also for the
# samseg.stats that run_samseg has just written: it reads its arguments by names that they don't
# have. The function behind it, and the sbtiv.stats that run_samseg writes by itself, are fine.
#
# Guess: it prints the sum of the intracranial structures, as its help says.
# Seen:  it stops with an AttributeError; with the function of the same package the sum is there.
# So:    to add structures to SAMSEG's sum, or leave some out (its option --labels), call samseg.icv;
#        otherwise read sbtiv.stats. hetseg's comparison (benchmarks/sbtiv.py) reads that file.
#
# Versions: samseg 0.4a0. Date: 2026-11-30. Source: measured; samseg/cli/sbtiv.py.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --pre samseg==0.4a0 numpy==1.26.4
cat > samseg.stats <<'STATS'
# Measure Left-Cerebral-White-Matter, 230000.500000, mm^3
# Measure Right-Cerebral-White-Matter, 231000.250000, mm^3
# Measure CSF, 250000.000000, mm^3
STATS
set +e
venv/bin/sbtiv samseg.stats > out.txt 2>&1
code=$?
set -e
echo "sbtiv samseg.stats: exit code $code, $(tail -n 1 out.txt)"
venv/bin/python - <<'PYTHON'
from samseg import icv

rows = [line.removeprefix("# Measure ").split(", ") for line in open("samseg.stats")]
print(f"samseg.icv of the same rows: {icv([[name, float(volume)] for name, volume, _ in rows]):.2f} mm3")
PYTHON
test "$code" -ne 0
grep -q AttributeError out.txt
