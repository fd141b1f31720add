from fasttrain.base import process


def test_the_quota_of_either_cgroup_version_is_read(tmp_path):
    assert process._cgroup_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert process._cgroup_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert process._cgroup_quota(tmp_path) is None


def test_threads_are_shared_among_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.setattr(process, "available_cores", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert process.default_threads() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "100")
    assert process.default_threads() == 1
