"""The pretended hosts: a directory each, a behaviour each, and the agent that runs scripts on them.

Behaviours, with their options and what these are by default; seconds are real ones:

    ok             runs the script
    delayed        Delayed for `seconds` (1), then runs
    undelivered    Pending until the delivery timeout (times time_scale), then DeliveryTimedOut
    timed_out      hangs `after` (execution timeout times time_scale) seconds: ExecutionTimedOut
    vanish         dies `after` (0.2) seconds: process killed, terminated, out of its group; stays InProgress until both
                   timeouts (times time_scale) are over
    no_agent       unknown to Systems Manager
    lost           ConnectionLost; Undeliverable `after` (0.5) seconds
    status         ends with `status` and `details` of any spelling, `after` (0.1) seconds, with response `code` (-1)
    exit           runs the script, and says `code` (1) for its exit status
    scale_in       leaves its group while the script runs, and answers
    no_osquery     has no osqueryi
    old_osquery    has osqueryi `version` (4.0.2) with no `tables` but these (processes, users)
    hang_tables    osqueryi hangs at `tables`
    clock          clock wrong by `seconds` (ten years ahead)
    s3_silent      its upload through OutputS3BucketName fails; Success none the less
    echo_other     prints the reply of another host (`of`, else any), which must have replied
    other_name     its head names another host (`as`)
    bad_id         its head names a host with control characters and 10 KB
    bad_gzip       hands over what is no gzip, with the right digest
    bad_frames     hands over a gzip of nonsense, with the right digest
    zip_bomb       hands over a gzip of `bytes` (256 MiB; inline 12 MiB) zeros, with the right digest
    wrong_object   hands over another gzip, with `bytes` (0) zeros behind, than it announces
    wrong_digest   announces another digest
    no_end         prints no end mark
    huge_claim     announces `bytes` (8 GiB)
    stdout_flood   prints `bytes` (4 MiB) of text `where` ("before") the reply
    stderr_flood   prints `bytes` (1 MiB) on stderr, and so does osqueryi with every query
"""

import contextlib
import heapq
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lies

FAKES = Path(__file__).parent / "fake"
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TEN_YEARS = 10 * 365 * 86400
KINDS = {
    "ok", "delayed", "undelivered", "timed_out", "vanish", "no_agent", "lost", "status", "exit", "scale_in",
    "no_osquery", "old_osquery", "hang_tables", "clock", "s3_silent", "echo_other", "stdout_flood", "stderr_flood",
    *lies.LIES,
}
# The agent's limits of what it hands on, in bytes.
MAX_STDOUT, MAX_STDERR = 24000, 8000
CUT = b"--output truncated--"


class Clock:
    """Runs things later."""

    def __init__(self):
        self.heap, self.order = [], itertools.count()
        self.changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def after(self, seconds, do):
        """Calls `do`, which must be short, when `seconds` have passed."""
        with self.changed:
            heapq.heappush(self.heap, (time.monotonic() + seconds, next(self.order), do))
            self.changed.notify()

    def _run(self):
        while True:
            with self.changed:
                while not self.heap or self.heap[0][0] > time.monotonic():
                    self.changed.wait(self.heap[0][0] - time.monotonic() if self.heap else None)
                _, _, do = heapq.heappop(self.heap)
            do()


class Host:
    """An instance."""

    def __init__(self, hosts, spec, group, place):
        self.hosts, self.id, self.group = hosts, spec["id"], group
        self.account, self.region = place
        self.platform = spec.get("platform", "Linux")
        self.tags = dict(spec.get("tags", {}))
        if group is not None:
            self.tags["aws:autoscaling:groupName"] = group
        self.dir = hosts.root / "hosts" / self.id
        self.gone = False
        self.commands = 0
        for name in ("bin", "tmp", "root", "commands"):
            (self.dir / name).mkdir(parents=True)
        (self.dir / "queries").symlink_to(hosts.root / "queries")
        self.behave(hosts.bench.config["hosts"].get(self.id, spec.get("behaviour", "ok")))

    def behave(self, behaviour):
        """From now on behaves like this."""
        behaviour = behaviour if isinstance(behaviour, list) else [behaviour]
        kinds = [{"kind": kind} if isinstance(kind, str) else kind for kind in behaviour]
        unknown = {kind["kind"] for kind in kinds} - KINDS
        if unknown:
            raise ValueError(f"unknown behaviours: {sorted(unknown)}")
        self.commands = 0
        self.behaviours = {kind["kind"]: kind for kind in kinds}
        self._furnish(self.behaviours)

    def take(self):
        """The behaviours towards one more command."""
        self.commands += 1
        current = {
            kind: options for kind, options in self.behaviours.items()
            if self.commands <= options.get("times", float("inf"))
        }
        if current != self.behaviours:
            self._furnish(current)
        return current

    def _furnish(self, behaviours):
        """Only links and plain files change: no program is written that another thread might be about to run."""
        for link in (self.dir / "bin").iterdir():
            link.unlink()
        for file in self.dir.glob("hang.*"):
            file.unlink()
        (self.dir / "flood").unlink(missing_ok=True)
        if "no_osquery" not in behaviours:
            self._link("osqueryi")
        if "clock" in behaviours:
            self._link("date")
            (self.dir / "clock").write_text(f"{behaviours['clock'].get('seconds', TEN_YEARS)}\n")
        self.planted = lies.upload(behaviours)
        if self.planted is not None:
            self._link("curl")
            (self.dir / "lie").write_bytes(self.planted)
        for table in behaviours.get("hang_tables", {}).get("tables", ()):
            (self.dir / f"hang.{table}").touch()
        if "stderr_flood" in behaviours:
            (self.dir / "flood").write_bytes(lies.flood_stderr(behaviours, b""))
        old = behaviours.get("old_osquery")
        (self.dir / "version").write_text((old.get("version", "4.0.2") if old else "5.10.2") + "\n")
        self._answer(old.get("tables", ["processes", "users"]) if old else None)

    def _link(self, fake):
        (self.dir / "bin" / fake).symlink_to(self.hosts.root / "fake" / fake)

    def _answer(self, only):
        answers, source = self.dir / "answers", self.hosts.bench.config["answers"]
        if answers.is_symlink():
            answers.unlink()
        elif answers.exists():
            shutil.rmtree(answers)
        if source is None:
            return
        source = Path(source).absolute() / self.id
        if only is None:
            answers.symlink_to(source)
            return
        answers.mkdir()
        for table in only:
            if (source / f"{table}.json").exists():
                (answers / f"{table}.json").symlink_to(source / f"{table}.json")

    @property
    def is_managed(self):
        """Whether Systems Manager knows it."""
        return not self.gone and "no_agent" not in self.behaviours

    @property
    def ping(self):
        return "ConnectionLost" if "lost" in self.behaviours else "Online"


class Hosts:
    """All hosts, and the agents on them."""

    def __init__(self, bench):
        self.bench = bench
        self.root = Path(bench.config["root"]).absolute()
        self.by_id = {}
        self.clock = Clock()
        self.pool = ThreadPoolExecutor(max_workers=bench.config["workers"])
        self.replies = {}
        self.replied = threading.Condition()
        self.running, self.lock = set(), threading.Lock()
        self.has_real_osquery = shutil.which("osqueryi", path=SYSTEM_PATH) is not None
        self._make_fakes()

    def _make_fakes(self):
        """Programs are written before anything runs: one that a forking thread has open for writing cannot start."""
        shutil.copytree(FAKES, self.root / "fake")
        cases = [
            f"{shlex.quote(sql.strip().rstrip(';').rstrip())}) table={shlex.quote(table)} ;;\n"
            for sql, table in self.bench.config["queries"].items()
        ]
        text = f"case $sql in\n{''.join(cases)}esac\n" if cases else ":\n"
        (self.root / "queries").write_text(text)

    def add(self, group, account, region):
        """Makes the hosts of a group."""
        for spec in group["hosts"]:
            if spec["id"] in self.by_id:
                raise SystemExit(f"bench.py: {spec['id']} is there twice")
            self.by_id[spec["id"]] = Host(self, spec, group.get("name"), (account, region))

    def deliver(self, invocation):
        """Hands an invocation to its host's agent."""
        host, behaviours = invocation.host, invocation.behaviours
        if not host.is_managed:
            # Gone since the command was accepted: nobody takes it.
            self._after_delivery_timeout(invocation)
        elif host.platform == "Windows":
            invocation.end("Failed", "InvalidPlatform")
        elif "lost" in behaviours:
            self._later(behaviours["lost"], 0.5, lambda: invocation.end("Failed", "Undeliverable"))
        elif "status" in behaviours:
            what = behaviours["status"]
            self._later(what, 0.1, lambda: invocation.end(
                what["status"], what.get("details", what["status"]), what.get("code", -1)))
        elif "undelivered" in behaviours:
            self._after_delivery_timeout(invocation)
        elif "delayed" in behaviours:
            invocation.move("Delayed")
            seconds = behaviours["delayed"].get("seconds", 1)
            self.clock.after(seconds, lambda: self.pool.submit(self._run, invocation))
        else:
            self.pool.submit(self._run, invocation)

    def _later(self, options, default, do):
        self.clock.after(options.get("after", default), do)

    def _after_delivery_timeout(self, invocation):
        wait = invocation.command.timeout * self.bench.config["time_scale"]
        self.clock.after(wait, lambda: invocation.end("TimedOut", "DeliveryTimedOut"))

    def _run(self, invocation):
        try:
            self._run_script(invocation)
        except Exception as error:  # A bug here must not look like a host that is still busy.
            invocation.end("Failed", f"BenchError{error!r}")
            raise

    def _run_script(self, invocation):
        behaviours, host = invocation.behaviours, invocation.host
        if not invocation.move("InProgress"):
            return
        if "timed_out" in behaviours:
            wait = invocation.command.work.timeout * self.bench.config["time_scale"]
            self._later(behaviours["timed_out"], wait, lambda: invocation.end("TimedOut", "ExecutionTimedOut", 137))
            return
        if "scale_in" in behaviours:
            self.bench.cloud.leave_group(host)
        if "vanish" in behaviours:
            self._later(behaviours["vanish"], 0.2, lambda: self._vanish(invocation))
        process, stdout, stderr = self._start(invocation)
        in_time = self._wait(process, invocation.command.work.timeout)
        if "vanish" in behaviours:
            return
        with open(stdout, "rb") as out, open(stderr, "rb") as err:
            self._report(invocation, process.returncode if in_time else None, out.read(), err.read())

    def _start(self, invocation):
        host, command = invocation.host, invocation.command
        where = host.dir / "commands" / command.id
        where.mkdir()
        script = where / "_script.sh"
        script.write_text(self._altered(command.work.script, host))
        stdout, stderr = where / "stdout", where / "stderr"
        with open(stdout, "wb") as out, open(stderr, "wb") as err, self.lock:
            # Not executed itself, but by what its first line names: it may still be open for writing in a fork.
            process = subprocess.Popen(
                [*_interpreter(command.work.script), str(script)], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                cwd=host.dir / "root", env=self._environment(host, command), start_new_session=True,
            )
            invocation.process = process
            self.running.add(process)
        if invocation.is_cancelled or host.gone:
            _kill(process)
        return process, stdout, stderr

    def _altered(self, script, host):
        """The script as this host runs it.

        One that puts the system's programs before those of its PATH would not meet a lying host's own ones, nor the
        pretended osqueryi on a machine that has a real one; there the host's come first.
        """
        lies_below = any((host.dir / "bin" / name).exists() for name in ("date", "curl"))
        if lies_below or self.has_real_osquery:
            first = "/usr/local/sbin:/usr/local/bin"
            return script.replace(first, f"{host.dir / 'bin'}:{first}")
        return script

    @staticmethod
    def _environment(host, command):
        return {
            "PATH": f"{host.dir / 'bin'}:{SYSTEM_PATH}",
            "TMPDIR": str(host.dir / "tmp"),
            "SSM_COMMAND_ID": command.id,
            "AWS_SSM_INSTANCE_ID": host.id,
            "AWS_SSM_REGION_NAME": host.region,
            "AWS_SSM_PLATFORM_NAME": "Amazon Linux",
            "AWS_SSM_PLATFORM_VERSION": "2023",
        }

    def _wait(self, process, seconds):
        """Whether it ended in time; kills what it leaves behind."""
        try:
            process.wait(seconds)
            return True
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return False
        finally:
            with self.lock:
                self.running.discard(process)

    def _vanish(self, invocation):
        host, process = invocation.host, invocation.process
        host.gone = True
        if process is not None:
            _kill(process)
        self.bench.cloud.terminate(host)
        wait = invocation.command.timeout + invocation.command.work.timeout
        wait *= self.bench.config["time_scale"]
        self.clock.after(wait, lambda: invocation.end("TimedOut", "DeliveryTimedOut"))

    def _report(self, invocation, status, stdout, stderr):
        """Says how the script ended; `status` is None when it was killed for its time."""
        host, behaviours = invocation.host, invocation.behaviours
        if "echo_other" in behaviours:
            stdout = self._reply_of_other(host, behaviours["echo_other"].get("of")) or stdout
        elif not behaviours.keys() & lies.LIES.keys():
            with self.replied:
                self.replies[host.id] = stdout
                self.replied.notify_all()
        whole = stdout
        stdout = lies.tell(behaviours, stdout, host.id, host.planted)
        stderr = lies.flood_stderr(behaviours, stderr)
        # Only the copy in S3 is another, as if somebody had overwritten it.
        copy = whole[::-1] if "wrong_object" in behaviours else stdout
        if not invocation.is_cancelled and "s3_silent" not in behaviours:
            invocation.command.copy_to_s3(host.id, copy, stderr)
        invocation.stdout, invocation.stderr = _cut(stdout, MAX_STDOUT), _cut(stderr, MAX_STDERR)
        if status is None:
            invocation.end("TimedOut", "ExecutionTimedOut", 137)
            return
        status = 128 - status if status < 0 else status
        status = behaviours["exit"].get("code", 1) if "exit" in behaviours else status
        # 168 is the agent's success-and-stop.
        result = "Success" if status in (0, 168) else "Failed"
        invocation.end(result, result, status)

    def _reply_of_other(self, host, other):
        """What another host said; waits a while for it."""
        def said():
            names = [name for name in self.replies if name != host.id and other in (None, name)]
            return self.replies[names[-1]] if names else None

        with self.replied:
            self.replied.wait_for(said, timeout=20)
            return said()

    def kill_all(self):
        """Nothing that was started lives on."""
        with self.lock:
            for process in self.running:
                _kill(process)


def kill(invocation):
    """Kills the script of an invocation, if it runs."""
    if invocation.process is not None:
        _kill(invocation.process)


def _kill(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _interpreter(script):
    """What the first line names, else `sh`."""
    first = script.split("\n", 1)[0]
    return first[2:].split() if first.startswith("#!") else ["sh"]


def _cut(output, limit):
    """As the agent cuts."""
    return output if len(output) < limit else output[:limit - len(CUT)] + CUT
