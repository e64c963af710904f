"""S3 for the tests: SeaweedFS, and moto's. Both listen on 127.0.0.1 alone and have the bucket `diffy-tests`.

Prints one line of JSON when both answer, {"weed": URL, "moto": URL}, and ends when its stdin closes, so that nothing
outlives the tests. Run by tests/it/s3/weed.rs with the Python of tests/setup.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = "diffy-tests"
WRITER = ("AKIAWRITERWRITERWRIT", "writer-secret-of-the-tests")
READER = ("AKIAREADERREADERREAD", "reader-secret-of-the-tests")
IDENTITIES = {
    "identities": [
        {
            "name": "writer",
            "credentials": [{"accessKey": WRITER[0], "secretKey": WRITER[1]}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER[0], "secretKey": READER[1]}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
}
PORTS = ["s3", "master", "volume", "filer", "admin"]
READY_SECONDS = 120


def free_ports(count):
    """Ports that nobody has at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def die_with_parent():
    """Linux: SIGKILL for the child when this process ends, however it ends."""
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_weed(directory):
    """Starts SeaweedFS; its process and its ports, that of S3 first."""
    ports = free_ports(2 * len(PORTS))
    with open(f"{directory}/s3.json", "w") as file:
        json.dump(IDENTITIES, file)
    os.makedirs(f"{directory}/data", exist_ok=True)
    flags = []
    for at, name in enumerate(PORTS):
        flags += [f"-{name}.port={ports[2 * at]}", f"-{name}.port.grpc={ports[2 * at + 1]}"]
    program = os.path.join(os.path.dirname(sys.executable), "weed")
    command = [
        program, "mini", f"-dir={directory}/data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        "-admin.ui=false", "-webdav=false", "-master.telemetry=false", f"-s3.config={directory}/s3.json",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        f"-filer.localSocket={directory}/f.sock", f"-s3.localSocket={directory}/s.sock", *flags,
    ]
    with open(f"{directory}/log", "wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory,
            env={"PATH": os.environ.get("PATH", ""), "HOME": directory}, preexec_fn=die_with_parent,
        )
    return process, ports


def stop(process, ports):
    process.kill()
    process.wait()
    # It puts these beside all others, whatever it is told.
    for at, name in enumerate(PORTS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"/tmp/seaweedfs-{name}-grpc-{ports[2 * at + 1]}.sock")


def client(url):
    return boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id=WRITER[0],
        aws_secret_access_key=WRITER[1],
        config=Config(retries={"max_attempts": 1}, connect_timeout=2, read_timeout=10, s3={"addressing_style": "path"}),
    )


def make_bucket(url, is_alive):
    """Asks until the server takes an object."""
    deadline = time.monotonic() + READY_SECONDS
    s3 = client(url)
    while True:
        try:
            if BUCKET not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
                s3.create_bucket(Bucket=BUCKET)
            s3.put_object(Bucket=BUCKET, Key="ready/x", Body=b"x")
            s3.delete_object(Bucket=BUCKET, Key="ready/x")
            return True
        except (BotoCoreError, ClientError):
            if not is_alive() or time.monotonic() > deadline:
                return False
            time.sleep(0.1)


def weed(directory):
    # A port can be taken between looking and starting.
    for attempt in range(3):
        place = f"{directory}/{attempt}"
        os.makedirs(place)
        process, ports = start_weed(place)
        if make_bucket(f"http://127.0.0.1:{ports[0]}", lambda: process.poll() is None):
            return process, ports
        stop(process, ports)
    with open(f"{place}/log", errors="replace") as log:
        sys.exit("SeaweedFS did not start:\n" + log.read()[-4000:])


def moto():
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "x")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "x")
    from werkzeug.serving import WSGIRequestHandler, make_server
    from moto.server import DomainDispatcherApplication, create_backend_app

    class Silent(WSGIRequestHandler):
        def log_request(self, *_):
            pass

    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    if not make_bucket(url, lambda: True):
        sys.exit("moto did not start")
    return url


def main():
    # Else it would end before it has cleaned up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = tempfile.mkdtemp(prefix="diffy-s3-")
    process = None
    try:
        process, ports = weed(directory)
        print(json.dumps({"weed": f"http://127.0.0.1:{ports[0]}", "moto": moto()}), flush=True)
        while sys.stdin.buffer.read(4096):
            pass
    finally:
        if process:
            stop(process, ports)
        shutil.rmtree(directory, ignore_errors=True)
    # Threads of servers are not waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
