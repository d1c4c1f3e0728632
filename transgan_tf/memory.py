"""Whether a run fits into the memory that there is."""

from pathlib import Path

import tensorflow as tf

from transgan_tf.checked import UserError
from transgan_tf.configs import Config
from transgan_tf.estimate import SAVERS
from transgan_tf.estimate import training_memory


class TooLarge(UserError):
    """A run that needs more memory than there is."""


def refuse_excess(config: Config, strategy: tf.distribute.Strategy) -> None:
    """Raises `TooLarge` if training would probably run out of memory.

    What cannot be found out is taken for enough.

    Args:
        config: `Config`.
        strategy: that it is to be trained under.
    """
    estimate = training_memory(config, strategy.num_replicas_in_sync)
    devices = _devices(strategy)
    if all("GPU" in name for name in devices):
        needed, where = estimate.on_device, "a GPU"
        limits = _gpu_limits()
        known = [limits[n] for n in map(_short, devices) if n in limits]
        available = min(known, default=None)
    else:
        # All replicas of this process share the host's memory.
        needed = estimate.program + len(devices) * estimate.on_host
        where, available = "this machine", host_memory()
    if available is not None and needed > available:
        raise TooLarge(
            f"training would take about {needed / 2**30:.1f} GiB of memory, "
            f"and {where} has {available / 2**30:.1f} GiB for it: {SAVERS} "
            "take less, and --force tries it all the same"
        )


def _devices(strategy):
    """Returns the names of the devices that this process trains on."""
    if strategy.num_replicas_in_sync > 1:
        return strategy.extended.worker_devices
    gpus = tf.config.list_logical_devices("GPU")
    return [gpus[0].name if gpus else "CPU:0"]


def _short(name):
    """Returns `GPU:0` of a name such as `/replica:0/task:0/device:GPU:0`."""
    return name.rpartition("device:")[2]


def host_memory() -> int | None:
    """Returns the bytes that this process may have, with those it has.

    The least of what the kernel calls available and what the process's control
    groups, such as a container's, leave; None if neither is known.
    """
    own = _kilobytes("/proc/self/status", "VmRSS")
    known = [_kilobytes("/proc/meminfo", "MemAvailable"), *_group_rooms()]
    known = [room for room in known if room is not None]
    return min(known) + (own or 0) if known else None


def _kilobytes(path, name):
    """Reads a line such as `MemAvailable:  17 kB` as bytes."""
    for line in _read(path).splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _group_rooms(root="/sys/fs/cgroup", own="/proc/self/cgroup"):
    """Yields the bytes that each control group above this process leaves."""
    for line in _read(own).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, used = Path(root), "memory.max", "anon"
        elif "memory" in controllers.split(","):
            base = Path(root, "memory")
            limit, used = "memory.limit_in_bytes", "total_rss"
        else:
            continue
        inside = Path(path.lstrip("/"))
        for group in (inside, *inside.parents):
            most = _read(base / group / limit).strip()
            if most.isdecimal():
                yield int(most) - _used(base / group / "memory.stat", used)


def _used(path, name):
    """Returns the bytes of a group that the kernel cannot just drop."""
    for line in _read(path).splitlines():
        if line.startswith(f"{name} "):
            return int(line.split()[1])
    return 0


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _gpu_limits():
    """Returns the bytes that TensorFlow may take of each GPU, `GPU:0` first."""
    from tensorflow.python.client import device_lib

    return {
        _short(device.name): device.memory_limit
        for device in device_lib.list_local_devices()
        if device.device_type == "GPU"
    }
