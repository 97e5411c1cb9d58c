import numpy as np

from hetseg_bids.structures.aseg import ASEG, N_STRUCTURES, N_TASKS, STRUCTURES


def test_there_are_28_structures_and_3_auxiliary_tasks():
    assert (N_STRUCTURES, N_TASKS) == (28, 31)
    assert sum(s.hemisphere == "L" for s in STRUCTURES) == 12
    assert sum(s.hemisphere is None for s in STRUCTURES) == 4


def test_labels_names_and_colours_are_unique():
    for values in ([s.label for s in STRUCTURES], list(ASEG.task_names)):
        assert len(set(values)) == len(values)
    for left in (s for s in STRUCTURES if s.hemisphere == "L"):
        assert left.label in left.members


def test_no_id_belongs_to_two_structures():
    assert ASEG.membership()[:, :N_STRUCTURES].sum(axis=1).max() == 1


def test_auxiliary_tasks_by_example():
    table = ASEG.membership()
    index = {name: i for i, name in enumerate(ASEG.task_names)}
    left, right, brain = (
        index[n] for n in ("left_hemisphere", "right_hemisphere", "brain_parenchyma")
    )
    assert table[[2, 4, 17, 31], left].all()
    assert not table[[2, 4, 17, 31], right].any()
    assert table[[2, 16, 77, 255], brain].all()
    assert not table[[4, 43, 14, 15, 24, 0], brain].any()


def test_mirrored_labels_have_mirrored_tasks():
    table = ASEG.membership()
    np.testing.assert_array_equal(table[ASEG.mirror_labels()], table[:, ASEG.mirror_permutation()])
    np.testing.assert_array_equal(ASEG.mirror_labels()[ASEG.mirror_labels()], np.arange(256))


def test_collapse_merges_parts_and_drops_the_rest():
    labels = np.array([0, 4, 5, 7, 8, 251, 255, 77, 24, 256, 1001, -1])
    np.testing.assert_array_equal(ASEG.collapse(labels), [0, 4, 4, 8, 8, 255, 255, 0, 0, 0, 0, 0])
    assert ASEG.collapse(labels).dtype == np.uint8


def test_names_for_machines_and_people():
    by_label = {s.label: s for s in STRUCTURES}
    assert by_label[4].title == "Left lateral ventricle"
    assert by_label[60].title == "Right ventral DC"
    assert by_label[60].both_sides == "Ventral DC"
    assert by_label[49].bare_name == "thalamus"
    assert by_label[16].bare_name == "brainstem"
    assert [by_label[i].hemisphere for i in (4, 43, 16)] == ["L", "R", None]


def test_ids_are_those_of_freesurfer():
    members = {s.name: set(s.members) for s in STRUCTURES}
    assert members["left_cerebellum"] == {7, 8}
    assert members["right_lateral_ventricle"] == {43, 44}
    assert members["corpus_callosum"] == {251, 252, 253, 254, 255}
    assert members["left_accumbens"] == {26}
    labels = {s.name: s.label for s in STRUCTURES}
    assert (labels["left_cerebellum"], labels["corpus_callosum"]) == (8, 255)


def test_tables_have_a_row_an_id():
    assert ASEG.membership().shape == (256, N_TASKS)
    assert ASEG.membership(300).shape == (301, N_TASKS)
    assert ASEG.membership().dtype == bool
    assert ASEG.mirror_permutation().dtype == np.int64
    assert ASEG.mirror_labels().dtype == np.uint8
    assert ASEG.mirror_labels()[[2, 8, 31, 79, 16, 24]].tolist() == [41, 47, 63, 78, 16, 24]


def test_every_label_has_its_colour_and_nothing_else_has():
    table = ASEG.color_table()
    assert table.shape == (256, 4)
    assert table.dtype == np.uint8
    assert table[17].tolist() == [220, 216, 20, 255]
    labelled = {s.label for s in STRUCTURES}
    assert set(np.flatnonzero(table[:, 3])) == labelled
    assert not table[[i for i in range(256) if i not in labelled]].any()
