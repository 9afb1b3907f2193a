"""Where a control group is made, for each layout of the hierarchy, and that none is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvlm.benchmarks.control_group import find_place, memory_control_group
from pocketvlm.errors import UnsupportedError


def proc_files(folder: Path, membership: str, mount: str) -> tuple[Path, Path]:
    """Files as /proc/self/cgroup and /proc/self/mountinfo."""
    (folder / "membership").write_text(membership)
    (folder / "mounts").write_text(f"21 1 8:1 / / rw - ext4 /dev/root rw\n{mount}\n")
    return folder / "membership", folder / "mounts"


def version_2_group(folder: Path, *, hands_on: str) -> None:
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (folder / "cgroup.subtree_control").write_text(f"{hands_on}\n")


def test_version_1_is_made_below_our_own_group(tmp_path: Path) -> None:
    mount = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
    place = find_place(*proc_files(tmp_path, "5:cpu,cpuacct:/a\n4:memory:/jobs/7\n0::/\n", mount))
    assert (place.version, place.folder) == (1, Path("/sys/fs/cgroup/memory/jobs/7"))


def test_version_1_in_a_container_whose_group_is_the_mounted_root(tmp_path: Path) -> None:
    mount = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
    place = find_place(*proc_files(tmp_path, "4:memory:/docker/abc\n", mount))
    assert place.folder == Path("/sys/fs/cgroup/memory")


def test_version_2_goes_one_up_when_our_group_holds_processes(tmp_path: Path) -> None:
    version_2_group(tmp_path / "tree/app.slice", hands_on="memory pids")
    version_2_group(tmp_path / "tree/app.slice/run.scope", hands_on="")
    mount = f"35 31 0:32 / {tmp_path}/tree rw - cgroup2 cgroup2 rw"
    place = find_place(*proc_files(tmp_path, "0::/app.slice/run.scope\n", mount))
    assert (place.version, place.folder) == (2, tmp_path / "tree/app.slice")


def test_version_2_stays_when_our_group_hands_memory_on(tmp_path: Path) -> None:
    version_2_group(tmp_path / "tree/app.slice", hands_on="memory")
    mount = f"35 31 0:32 / {tmp_path}/tree rw - cgroup2 cgroup2 rw"
    assert find_place(*proc_files(tmp_path, "0::/app.slice\n", mount)).folder == tmp_path / "tree/app.slice"


def test_version_2_without_the_controller_says_what_is_needed(tmp_path: Path) -> None:
    version_2_group(tmp_path / "tree/app.slice", hands_on="cpu")
    version_2_group(tmp_path / "tree/app.slice/run.scope", hands_on="")
    mount = f"35 31 0:32 / {tmp_path}/tree rw - cgroup2 cgroup2 rw"
    with pytest.raises(UnsupportedError, match=r"run\.scope nor the group above hands .*systemd-run"):
        find_place(*proc_files(tmp_path, "0::/app.slice/run.scope\n", mount))


def test_no_hierarchy_at_all_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"no mounted control group hierarchy .* run as root"):
        find_place(*proc_files(tmp_path, "0::/\n", "36 31 0:33 / /dev/shm rw - tmpfs tmpfs rw"))


@pytest.mark.usefixtures("control_groups")
def test_the_group_is_removed_also_after_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), memory_control_group(2**30) as group:
        assert group.folder.is_dir()
        assert group.oom_kills() == 0
        raise KeyboardInterrupt
    assert not group.folder.exists()
