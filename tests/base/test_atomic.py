import pytest

from fasttrain.base.atomic import atomic_open, part_path


def test_the_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_open(target) as file:
        file.write("done")
        assert not target.exists()
    assert target.read_text() == "done"
    assert not part_path(target).exists()


def test_an_error_leaves_the_old_content_and_no_rest(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_open(target) as file:
        file.write("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
