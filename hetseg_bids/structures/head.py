"""What the head model labels: the inside of the skull, and the brain in it."""

from __future__ import annotations

from hetseg_bids.structures.label_sets import LabelSet, Structure

FLUID, BRAIN, OUTSIDE = 1, 2, 3
"""Ids of its training labels: brain; all else inside the skull; the rest of the head."""

INTRACRANIAL = Structure("intracranial", FLUID, (FLUID, BRAIN), (60, 160, 220))
WHOLE_BRAIN = Structure("brain", BRAIN, (BRAIN,), (230, 160, 60))
HEAD = LabelSet((INTRACRANIAL, WHOLE_BRAIN))
