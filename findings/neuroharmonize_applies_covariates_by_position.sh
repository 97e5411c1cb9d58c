#!/bin/sh
# neuroHarmonize learns from a data frame of covariates, but applies what it learned by the position of
# the columns. The same columns in another order (AGE and SEX swapped) give other volumes, without a word:
# years are multiplied with the effect of sex. Where SITE stands doesn't matter: it is found by its name.
#
# Guess: columns of a data frame are matched by name, as SITE is; a mismatch is an error.
# Seen:  of 90 synthetic volumes with sites apart by up to 300 mm3, harmonised ones are wrong by up to
#        thousands of mm3, those whose columns keep their order are right.
# So:    keep the list of columns with the model, and give covariates[columns] to harmonizationApply. Needed
#        when new scans are harmonised later, for example tables of volumes joined with participants.tsv.
#        hetseg harmonises nothing; its users do with group_volumes.tsv.
#
# Versions: neuroHarmonize 2.5.2, neuroCombat 0.2.12. Date: 2026-11-30. Source: measured;
# neuroHarmonize/harmonizationApply.py turns the frame into an array. Its documentation asks for the same
# order of samples, and says nothing of that of covariates.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check neuroHarmonize==2.5.2 neuroCombat==0.2.12
venv/bin/python - <<'PYTHON'
import numpy as np
import pandas as pd
from neuroHarmonize import harmonizationApply, harmonizationLearn

rng = np.random.default_rng(0)
n = 90
covariates = pd.DataFrame(
    {"SITE": np.repeat(["A", "B", "C"], n // 3), "AGE": rng.uniform(20, 80, n), "SEX": rng.integers(0, 2, n)}
)
of_age, of_sex = -15 * covariates["AGE"].to_numpy(), 300 * covariates["SEX"].to_numpy()
of_site = np.repeat([0, 200, -100], n // 3)
volumes = (4000 + of_age + of_sex + of_site)[:, None] + rng.normal(0, 50, (n, 4))

model, learned = harmonizationLearn(volumes, covariates)
apart = {}
for order in (["SITE", "AGE", "SEX"], ["AGE", "SEX", "SITE"], ["SITE", "SEX", "AGE"]):
    applied = harmonizationApply(volumes, covariates[order], model)
    apart[order[0], order[1]] = np.abs(applied - learned).max()
    print(f"columns {order}: up to {np.abs(applied - learned).max():.1f} mm3 from what was learned")
same, moved, swapped = apart.values()
raise SystemExit(not (same < 1e-6 and moved < 1e-6 and swapped > 1000))
PYTHON
