"""Who is missing from a cohort."""

from __future__ import annotations

from hetseg_bids.runs.missing import read_participants


def test_a_table_of_participants_that_cannot_be_read_costs_a_line(tmp_path, caplog):
    assert not len(read_participants(tmp_path))
    assert caplog.text == ""  # BIDS doesn't ask for one
    table = tmp_path / "participants.tsv"
    for content in (b"participant_id\tage\nsub-\xff\t3\n", b"", b"name\tage\nx\t3\n"):
        caplog.clear()
        table.write_bytes(content)
        assert not len(read_participants(tmp_path))
        assert "participants.tsv: can't be used" in caplog.text
