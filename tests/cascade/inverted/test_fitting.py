"""What fits in memory is told by the machine and by every control group around the process."""

import pytest

from cascade.inverted import fitting

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GiB available and no control groups, as files."""
    meminfo, groups, own = tmp_path / "meminfo", tmp_path / "cgroup", tmp_path / "own"
    meminfo.write_text(f"MemTotal: {16 << 20} kB\nMemAvailable:   {8 << 20} kB\n")
    own.write_text("")
    groups.mkdir()
    monkeypatch.setattr(fitting, "_MEMINFO", meminfo)
    monkeypatch.setattr(fitting, "_GROUPS", groups)
    monkeypatch.setattr(fitting, "_OWN_GROUPS", own)
    return tmp_path


def group(directory, **files):
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(str(text))


def test_without_control_groups_it_is_what_the_machine_has(machine):
    assert fitting.available_memory() == 8 * GIB
    assert fitting.fits(4 * GIB)
    assert not fitting.fits(4 * GIB + 1)


def test_what_is_held_already_counts_as_available(machine):
    assert fitting.fits(6 * GIB, held=4 * GIB)
    assert not fitting.fits(6 * GIB + 1, held=4 * GIB)


def test_a_group_of_version_2_leaves_its_limit_less_what_it_uses_and_can_not_give_back(machine):
    (machine / "own").write_text("0::/user/app\n")
    group(
        machine / "cgroup/user/app",
        memory__max=3 * GIB,
        memory__current=2 * GIB,
        memory__stat=f"anon {GIB}\ninactive_file {GIB // 2}\n",
    )
    assert fitting.available_memory() == GIB + GIB // 2


def test_the_tightest_of_the_groups_around_it_counts(machine):
    (machine / "own").write_text("0::/user/app\n")
    stat = "inactive_file 0\n"
    group(machine / "cgroup/user/app", memory__max="max", memory__current=0, memory__stat=stat)
    group(machine / "cgroup/user", memory__max=5 * GIB, memory__current=GIB, memory__stat=stat)
    assert fitting.available_memory() == 4 * GIB


def test_inside_a_container_the_root_is_the_group(machine):
    (machine / "own").write_text("0::/\n")
    stat = "inactive_file 0\n"
    group(machine / "cgroup", memory__max=GIB, memory__current=GIB // 4, memory__stat=stat)
    assert fitting.available_memory() == GIB - GIB // 4


def test_a_group_of_version_1_counts_too(machine):
    (machine / "own").write_text("5:cpu,cpuacct:/a\n4:memory:/a\n")
    (machine / "cgroup/memory/a").mkdir(parents=True)
    for name, text in {
        "memory.limit_in_bytes": 2 * GIB,
        "memory.usage_in_bytes": GIB,
        "memory.stat": f"total_inactive_file {GIB // 4}\n",
    }.items():
        (machine / "cgroup/memory/a" / name).write_text(str(text))
    assert fitting.available_memory() == GIB + GIB // 4


def test_a_full_group_leaves_nothing_and_not_less(machine):
    (machine / "own").write_text("0::/a\n")
    stat = "inactive_file 0\n"
    group(machine / "cgroup/a", memory__max=GIB, memory__current=2 * GIB, memory__stat=stat)
    assert fitting.available_memory() == 0
    assert not fitting.fits(1)
    assert fitting.fits(0)


def test_this_machine_has_some():
    assert fitting.available_memory() > 0
