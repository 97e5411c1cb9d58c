import numpy as np

from hetseg_bids.structures import (
    N_STRUCTURES,
    N_TASKS,
    STRUCTURES,
    TASK_NAMES,
    collapse_to_structures,
    mirror_labels,
    mirror_permutation,
    task_membership,
)


def test_there_are_28_structures_and_3_auxiliary_tasks():
    assert (N_STRUCTURES, N_TASKS) == (28, 31)
    assert sum(s.hemisphere == "L" for s in STRUCTURES) == 12
    assert sum(s.hemisphere is None for s in STRUCTURES) == 4


def test_labels_names_and_colours_are_unique():
    for values in ([s.label for s in STRUCTURES], list(TASK_NAMES)):
        assert len(set(values)) == len(values)
    for left in (s for s in STRUCTURES if s.hemisphere == "L"):
        assert left.label in left.members


def test_no_id_belongs_to_two_structures():
    assert task_membership()[:, :N_STRUCTURES].sum(axis=1).max() == 1


def test_auxiliary_tasks_by_example():
    table = task_membership()
    index = {name: i for i, name in enumerate(TASK_NAMES)}
    left, right, brain = (
        index[n] for n in ("left_hemisphere", "right_hemisphere", "brain_parenchyma")
    )
    assert table[[2, 4, 17, 31], left].all()
    assert not table[[2, 4, 17, 31], right].any()
    assert table[[2, 16, 77, 255], brain].all()
    assert not table[[4, 43, 14, 15, 24, 0], brain].any()


def test_mirrored_labels_have_mirrored_tasks():
    table = task_membership()
    np.testing.assert_array_equal(table[mirror_labels()], table[:, mirror_permutation()])
    np.testing.assert_array_equal(mirror_labels()[mirror_labels()], np.arange(256))


def test_collapse_merges_parts_and_drops_the_rest():
    labels = np.array([0, 4, 5, 7, 8, 251, 255, 77, 24, 1001, -3])
    np.testing.assert_array_equal(
        collapse_to_structures(labels), [0, 4, 4, 8, 8, 255, 255, 0, 0, 0, 0]
    )
