"""A private Grid Engine with one execution host, in namespaces of its own. Root only.

Grid Engine insists on a host name that is not loopback's: a network namespace gives it one. What is to speak to it, and
what its jobs are to reach, must be in there, too: :meth:`GridEngine.run`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["GridEngine", "why_not"]

HOST, ADDRESS = "sge1", "10.99.0.1"
_BINARIES = Path("/usr/lib/gridengine")
_SHARE = Path("/usr/share/gridengine")
_PROGRAMS = (
    "sge_qmaster",
    "sge_execd",
    "qsub",
    "qstat",
    "qdel",
    "qacct",
    "qconf",
    "spoolinit",
    "spooldefaults",
)

_BOOTSTRAP = """\
admin_user              none
default_domain          none
ignore_fqdn             true
spooling_method         berkeleydb
spooling_lib            libspoolb
spooling_params         {root}/spooldb
binary_path             /usr/sbin
qmaster_spool_dir       {root}/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
"""

_PARALLEL = """\
pe_name            smp
slots              999
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    $pe_slots
control_slaves     FALSE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""

_QUEUE = """\
qname                 {name}
hostlist              {host}
seq_no                0
load_thresholds       NONE
suspend_thresholds    NONE
nsuspend              1
suspend_interval      00:05:00
priority              0
min_cpu_interval      00:05:00
processors            UNDEFINED
qtype                 BATCH INTERACTIVE
ckpt_list             NONE
pe_list               smp
rerun                 TRUE
slots                 {slots}
tmpdir                /tmp
shell                 /bin/bash
prolog                NONE
epilog                NONE
shell_start_mode      unix_behavior
starter_method        NONE
suspend_method        NONE
resume_method         NONE
terminate_method      NONE
notify                00:00:05
owner_list            NONE
user_lists            NONE
xuser_lists           NONE
subordinate_list      NONE
complex_values        NONE
projects              NONE
xprojects             NONE
calendar              NONE
initial_state         default
s_rt                  INFINITY
h_rt                  INFINITY
s_cpu                 INFINITY
h_cpu                 INFINITY
s_fsize               INFINITY
h_fsize               INFINITY
s_data                INFINITY
h_data                INFINITY
s_stack               INFINITY
h_stack               INFINITY
s_core                INFINITY
h_core                INFINITY
s_rss                 INFINITY
h_rss                 INFINITY
s_vmem                INFINITY
h_vmem                INFINITY
"""


def why_not() -> str | None:
    """Return why no Grid Engine can be started here; None if one can."""
    missing = [name for name in _PROGRAMS if not (_BINARIES / name).exists()]
    if missing:
        return f"{' '.join(missing)} not installed (gridengine-master gridengine-exec gridengine-client)"
    if os.geteuid() != 0:
        return "only root can start Grid Engine"
    probe = [
        "unshare",
        "--net",
        "--uts",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "true",
    ]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return "network namespaces are forbidden here"
    return None


def _with(configuration: str, values: Mapping[str, str]) -> str:
    """Replace values in lines of a name and its value."""
    lines = []
    for line in configuration.splitlines():
        name = line.split(maxsplit=1)[0] if line.strip() else ""
        lines.append(f"{name} {values[name]}" if name in values else line)
    return "\n".join(lines) + "\n"


class GridEngine:
    """One host, queues ``all.q`` and ``short.q``, parallel environment ``smp``.

    Parameters
    ----------
    root
        Becomes ``SGE_ROOT``.
    slots
        Of the host.
    """

    def __init__(self, root: Path, slots: int = 4) -> None:
        self.root = root
        self.slots = slots
        self._holder: subprocess.Popen[bytes] | None = None
        self._inside = 0

    @property
    def environment(self) -> dict[str, str]:
        """What Grid Engine's commands need."""
        return {
            **os.environ,
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": "6444",
            "SGE_EXECD_PORT": "6445",
        }

    def prefix(self) -> list[str]:
        """Return the command line that runs what follows it inside."""
        return ["nsenter", "-t", str(self._inside), "--net", "--uts", "--mount", "--pid"]

    def run(
        self,
        *command: str,
        environment: Mapping[str, str] | None = None,
        check: bool = True,
        text: str | None = None,
    ) -> str:
        """Run a command inside and return what it printed, on both streams."""
        done = subprocess.run(
            [*self.prefix(), *command],
            env={**self.environment, **(environment or {})},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, input=text,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stdout}"
        return done.stdout

    def start(self) -> None:
        """Start master and execution daemon, and wait until the host has free slots."""
        common = self.root / "default/common"
        for folder in (common, self.root / "qmaster/job_scripts", self.root / "spooldb", self.root / "execd"):
            folder.mkdir(parents=True)
        (self.root / "bin").mkdir()
        (self.root / "bin/lx-amd64").symlink_to(_BINARIES)
        (self.root / "util").symlink_to(_SHARE / "util")
        (common / "bootstrap").write_text(_BOOTSTRAP.format(root=self.root))
        (common / "act_qmaster").write_text(HOST + "\n")
        (self.root / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {HOST}\n")
        script = (
            f"hostname {HOST} && mount --bind {self.root}/hosts /etc/hosts && {sys.executable} -I {__file__} network "
            "&& touch $SGE_ROOT/inside; while :; do wait; sleep 0.2; done"
        )
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", script],
            env=self.environment, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._until((self.root / "inside").exists, 10, "network")
        self._inside = self._child(self._holder.pid)
        self._initialise()
        self.run("/usr/lib/gridengine/sge_qmaster")
        self._until(lambda: "No" not in self.run("qconf", "-sh", check=False)[:9], 20, "master")
        self.run("qconf", "-ah", HOST)
        self.run("qconf", "-as", HOST)
        self._configure()
        self.run("/usr/lib/gridengine/sge_execd")
        self._until(lambda: "lx-amd64" in self.run("qstat", "-f", check=False), 60, "execution host")

    def _initialise(self) -> None:
        configuration = (
            (_SHARE / "default-configuration")
            .read_text()
            .replace("/var/spool/gridengine/execd", str(self.root / "execd"))
        )
        values = {
            "min_uid": "0", "min_gid": "0", "mailer": "/bin/true", "load_report_time": "00:00:02",
            "execd_params": "INHERIT_ENV=false,ENABLE_ADDGRP_KILL=true",
            "reporting_params": "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 "
            "joblog=false sharelog=00:00:00",
        }  # fmt: skip
        configuration = _with(configuration, values)
        (self.root / "configuration").write_text(configuration)
        self.run(f"{_BINARIES}/spoolinit", "berkeleydb", "libspoolb", f"{self.root}/spooldb", "init")
        for what, where in (
            ("configuration", f"{self.root}/configuration"),
            ("complexes", f"{_SHARE}/util/resources/centry"),
            ("usersets", f"{_SHARE}/util/resources/usersets"),
            ("managers", "root"),
        ):
            self.run(f"{_BINARIES}/spooldefaults", what, where)

    def _configure(self) -> None:
        """Add the parallel environment and the queues; schedule every second, not every fifteen."""
        self._from_file("-Ap", "pe", _PARALLEL)
        for name in ("all.q", "short.q"):
            self._from_file("-Aq", name, _QUEUE.format(name=name, host=HOST, slots=self.slots))
        scheduler = self.run("qconf", "-ssconf")
        changed = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self._from_file("-Msconf", "sched", _with(scheduler, changed))

    def _from_file(self, option: str, name: str, text: str) -> None:
        path = self.root / f"{name}.conf"
        path.write_text(text)
        self.run("qconf", option, str(path))

    def _child(self, parent: int) -> int:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) == parent:
                    return int(entry.name)
        raise AssertionError("no process inside")

    def _until(self, condition: object, seconds: float, what: str) -> None:
        end = time.monotonic() + seconds
        while not condition():  # type: ignore[operator]
            messages = self.root / "qmaster/messages"
            said = messages.read_text()[-800:] if messages.exists() else ""
            assert time.monotonic() < end, f"no {what} after {seconds:.0f} s\n{said}"
            time.sleep(0.1)

    def stop(self) -> None:
        """End everything at once: the namespace takes its processes along."""
        if self._holder is not None:
            self._holder.send_signal(signal.SIGKILL)
            self._holder.wait()
        shutil.rmtree(self.root, ignore_errors=True)


def _set_up_network() -> None:
    """Bring loopback up, with a second address that is not loopback's to Grid Engine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for name, address, mask in (("lo", "127.0.0.1", "255.0.0.0"), ("lo:1", ADDRESS, "255.255.255.0")):
            for request, value in ((0x8916, address), (0x891C, mask)):  # SIOCSIFADDR, SIOCSIFNETMASK
                packed = struct.pack(
                    "16sH2s4s8s", name.encode(), socket.AF_INET, b"", socket.inet_aton(value), b""
                )
                fcntl.ioctl(one, request, packed)
            fcntl.ioctl(one, 0x8914, struct.pack("16sH14s", name.encode(), 0x1 | 0x40, b""))  # up, running


if __name__ == "__main__":
    _set_up_network()
