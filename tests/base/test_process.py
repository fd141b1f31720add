import pytest

from fasttrain.base import process
from fasttrain.base.errors import LaunchError


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


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"WORLD_SIZE": "2"},
            "one of 2 processes, but RANK and LOCAL_RANK and MASTER_ADDR and MASTER_PORT are not set",
        ),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "1"},
            "but MASTER_ADDR is not set; start them with: torchrun",
        ),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole number, not 'two'"),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "one of 4 processes of srun, and none knows of the others"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "one of 2 processes of mpirun"),
    ],
)
def test_processes_that_cannot_find_each_other_are_refused(monkeypatch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=message):
        process.check_launch()


def test_starts_that_are_well(monkeypatch):
    process.check_launch()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    process.check_launch()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")  # srun started a torchrun on each of two machines
    for name, value in {
        "WORLD_SIZE": "16",
        "RANK": "9",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "a",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    process.check_launch()


def test_a_job_keeps_its_name_over_restarts(monkeypatch):
    assert process.job_name() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-7")
    assert process.job_name() == "job-7"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert process.job_name() == process.job_name() != "none"


def test_the_memory_that_is_left_counts_the_page_cache_as_free(tmp_path):
    assert process.available_memory(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable: 600 kB\n")
    assert process.available_memory(tmp_path) == 600 * 1024
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert process.available_memory(tmp_path) == 600 * 1024
    (group / "memory.max").write_text("500000\n")
    (group / "memory.current").write_text("450000\n")
    (group / "memory.stat").write_text("anon 300000\nfile 100000\n")
    assert process.available_memory(tmp_path) == 150000
