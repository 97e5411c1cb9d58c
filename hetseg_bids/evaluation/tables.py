"""The paper's Table 1: Dice of each structure under each system, mean and spread."""

from __future__ import annotations

import pandas as pd

from hetseg_bids.structures.label_sets import both_sides

OVERALL = "All structures"


def table1(scores: pd.DataFrame) -> pd.DataFrame:
    """Dice by structure (both sides together) and system.

    Parameters
    ----------
    scores : DataFrame
        As `compare.score_systems` makes it.

    Returns
    -------
    table : DataFrame
        One row per structure and one for all together: ``structure``, then ``SYSTEM_mean`` and
        ``SYSTEM_sd`` over scans, sides and runs.

    Examples
    --------
    >>> names, dices = ["left_putamen", "right_putamen"], [0.8, 0.9]
    >>> table1(pd.DataFrame({"name": names, "system": "label-flip", "dice": dices})).round(2)
            structure  label-flip_mean  label-flip_sd
    0         Putamen             0.85           0.07
    1  All structures             0.85           0.07
    """
    named = scores.assign(structure=scores["name"].map(both_sides))
    everything = pd.concat((named, named.assign(structure=OVERALL)))
    order = [*dict.fromkeys(named["structure"]), OVERALL]
    groups = everything.groupby(["structure", "system"], sort=False)["dice"]
    table = pd.DataFrame({"structure": order})
    for system in scores["system"].unique():
        for column, values in (("mean", groups.mean()), ("sd", groups.std())):
            table[f"{system}_{column}"] = [values.get((name, system)) for name in order]
    return table


def table1_markdown(table: pd.DataFrame) -> str:
    """`table1` as Markdown: mean ± standard deviation, the best mean of a row in bold.

    Examples
    --------
    >>> table = pd.DataFrame({"structure": ["Putamen"], "plain_mean": [0.85], "plain_sd": [0.07]})
    >>> print(table1_markdown(table), end="")
    | structure | plain |
    |---|---|
    | Putamen | 0.850 ± 0.070 |
    """
    systems = [c.removesuffix("_mean") for c in table.columns if c.endswith("_mean")]
    lines = ["| structure | " + " | ".join(systems) + " |", "|---|" + "---|" * len(systems)]
    for _, row in table.iterrows():
        means = [round(row[f"{s}_mean"], 3) for s in systems]
        best = max((m for m in means if m == m), default=None)
        cells = []
        for system, mean in zip(systems, means, strict=True):
            text = f"{mean:.3f}"
            if mean == best and len(systems) > 1:
                text = f"**{text}**"
            cells.append(f"{text} ± {row[f'{system}_sd']:.3f}")
        lines.append(f"| {row['structure']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
