#!/bin/sh
# In a formula of statsmodels rows with a missing value are dropped, but patsy has found the levels of each category before that.
# If one covariate is n/a for all scans of a site, the site has no row left and keeps its column. With sum coding, which analyses
# of variance of type 2 and 3 are taught with, the columns of the sites that remain then add up to the intercept; the fit spreads
# the mean volume over both, and anova_lm tests the mean as if it were a difference between sites. The effect of age can
# vanish in the same way. statsmodels 0.15 can use formulaic in place of patsy (statsmodels.formula.options.formula_engine):
# there the same data, formula and call give the right table, because formulaic drops the rows first.
#
# Guess: dropping incomplete rows by the formula is the same as data.dropna() before; both engines give one answer; a site
#        without rows is an error or changes nothing.
# Seen:  volumes without an effect of site: p = 0.38 after dropna(), p = 2e-17 without (type 3). With age:site in the model type 2
#        gives age p = 0.99 instead of 0.0003. Type 1 is wrong under any coding. Residual degrees of freedom, R2 and fitted values are right, so
#        nothing looks odd; site has 2 degrees of freedom though two sites are left. There is one warning, of a rank-deficient
#        design matrix, which doesn't say why.
# So:    data = data[columns].dropna() before the formula, or compare the degrees of freedom of each category with its levels.
#
# hetseg: the intracranial volume is n/a where a scan was stripped, and often that is so for all scans of one site; with
# group_volumes.tsv, site and intracranial_mm3 in a formula this is met. hetseg itself fits no such model.
#
# Versions: statsmodels 0.15.0, patsy 1.0.3, formulaic 1.2.2, pandas 3.1.1. Date: 2026-12-01. Source: measured; patsy's issue 161
# asks for a way to drop columns of zeros; its documentation says that missing rows are dropped, not that levels stay.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3.11 -m venv venv
venv/bin/pip install --quiet --no-compile --disable-pip-version-check \
  statsmodels==0.15.0 patsy==1.0.3 formulaic==1.2.2 pandas==3.1.1 numpy==2.4.6 scipy==1.17.1
venv/bin/python - <<'PYTHON'
import sys
import warnings

import numpy as np
import pandas as pd
import statsmodels.formula
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

rng = np.random.default_rng(0)
n = 60
table = pd.DataFrame(
    {"age": rng.uniform(20, 80, n), "site": np.repeat(["A", "B", "C"], n // 3), "icv": rng.normal(1500, 100, n)}
)
table["volume"] = 4000 - 3 * table["age"] + rng.normal(0, 100, n)  # no effect of site
table.loc[table["site"] == "C", "icv"] = np.nan
table.to_csv("table.tsv", sep="\t", index=False, na_rep="n/a")
table = pd.read_csv("table.tsv", sep="\t", na_values="n/a")

seen = {}
for formula, kind in (
    ("volume ~ age + icv + C(site, Sum)", 3),
    ("volume ~ age * C(site, Sum) + icv", 2),
    ("volume ~ age + icv + C(site)", 1),
):
    print(f"{formula}, type {kind}")
    for engine, rows, data in (
        ("patsy", "dropna()", table.dropna()),
        ("patsy", "as read", table),
        ("formulaic", "as read", table),
    ):
        statsmodels.formula.options.formula_engine = engine
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit = ols(formula, data).fit()
            found = anova_lm(fit, typ=kind)
        (site,) = (row for name, row in found.iterrows() if name.startswith("C(site"))
        p_site, p_age, df = float(site["PR(>F)"]), float(found.loc["age", "PR(>F)"]), int(site["df"])
        said = sorted({w.category.__name__ for w in caught})
        print(
            f"  {engine:9} {rows:8}: {fit.nobs:.0f} scans, {fit.df_resid:.0f} residual df, R2 {fit.rsquared:.4f};"
            f" site df {df}, p = {p_site:.2g}; age p = {p_age:.2g}; {' '.join(said)}"
        )
        seen[kind, engine, rows] = (df, p_site, p_age)

right = True
for kind in (1, 2, 3):
    clean, dirty, other = (seen[kind, *way] for way in (("patsy", "dropna()"), ("patsy", "as read"), ("formulaic", "as read")))
    right &= clean[0] == other[0] == 1 and dirty[0] == 2 and np.allclose(clean, other, rtol=1e-4)
    right &= clean[1] > 0.05 and clean[2] < 0.01
right &= seen[3, "patsy", "as read"][1] < 1e-10 and seen[2, "patsy", "as read"][1] < 1e-10
right &= seen[2, "patsy", "as read"][2] > 0.5
right &= abs(seen[1, "patsy", "as read"][1] - seen[1, "patsy", "dropna()"][1]) > 0.01
sys.exit(not right)
PYTHON
