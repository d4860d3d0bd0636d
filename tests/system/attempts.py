"""What lognot.service may not do, as data: Python that is tried inside its sandbox, and how it must fail."""

from __future__ import annotations

from dataclasses import dataclass

from system.probes import LOGS

# lognot.service has no actions: what is tried in its sandbox is Python, run by an ExecStartPre= of it.
SANDBOX_HELPERS = '''
import ctypes, errno, json, os, socket, sys

libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if function(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")


def write(path):
    open(path, "a").close()
    os.remove(path)


def read(path):
    """What is inaccessible is empty to a process that may read everything."""
    if not open(path, "rb").read():
        raise OSError(errno.ENODATA, "empty")


def connect(family, kind, address):
    with socket.socket(family, kind) as connection:
        connection.connect(address)


def mount():
    call(libc.mount, b"probe", b"/mnt", b"tmpfs", 0, None)
    call(libc.umount2, b"/mnt", 0)


def own_file(change):
    try:
        open("/var/lib/lognot/probe", "w").close()
        change("/var/lib/lognot/probe")
    finally:
        os.remove("/var/lib/lognot/probe")


def attempt(code):
    try:
        exec(code)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
'''


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something that lognot.service must not do, in Python, and the error that it gets."""

    name: str
    code: str
    refusal: str


REFUSED = (
    *(
        Attempt(f"write{directory.replace('/', '-')}", f"write('{directory}/probe-written')", "EROFS")
        for directory in ("/etc", "/usr", "/var/log", "/var/lib", "/var/spool", "/root", "/home", "/boot")
    ),
    # What is watched cannot be changed: root has neither a way to write to it, nor the right to.
    Attempt("write-log", f"open('{LOGS}/read-only.log', 'a')", "EROFS"),
    Attempt("write-log-of-another-user", f"open('{LOGS}/kill.log', 'a')", "EACCES"),
    Attempt("write-cgroup", "os.mkdir('/sys/fs/cgroup/probe'); os.rmdir('/sys/fs/cgroup/probe')", "EROFS"),
    Attempt("write-sysctl", "open('/proc/sys/net/ipv4/tcp_syncookies', 'w')", "ENOENT"),
    Attempt("read-shadow", "read('/etc/shadow')", "ENODATA"),
    Attempt("read-gshadow", "read('/etc/gshadow')", "ENODATA"),
    Attempt("read-ssh-key", "read('/etc/ssh/ssh_host_ed25519_key')", "ENOENT"),
    Attempt("read-tls-key", "read('/etc/ssl/private/probe.key')", "ENOENT"),
    Attempt("read-shadow-of-init", "read('/proc/1/root/etc/shadow')", "EACCES"),
    # Whoever is root and can talk to the service manager is out of any sandbox.
    Attempt(
        "connect-systemd",
        "connect(socket.AF_UNIX, socket.SOCK_STREAM, '/run/systemd/private')",
        "ENOENT",
    ),
    Attempt(
        "connect-dbus",
        "connect(socket.AF_UNIX, socket.SOCK_STREAM, '/run/dbus/system_bus_socket')",
        "ENOENT",
    ),
    Attempt("connect-tcp", "connect(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', 25))", "EAFNOSUPPORT"),
    Attempt("connect-tcp6", "connect(socket.AF_INET6, socket.SOCK_STREAM, ('::1', 25))", "EAFNOSUPPORT"),
    Attempt("netlink", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)", "EAFNOSUPPORT"),
    Attempt("packet-socket", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768)", "EAFNOSUPPORT"),
    Attempt("mount", "mount()", "EPERM"),
    Attempt("new-namespace", "call(libc.unshare, 0x40000000)", "EPERM"),
    Attempt(
        "hostname", "call(libc.sethostname, os.uname().nodename.encode(), len(os.uname().nodename))", "EPERM"
    ),
    Attempt("priority", "os.setpriority(os.PRIO_PROCESS, 0, -1)", "EPERM"),
    Attempt(
        "device-node",
        "os.mknod('/var/lib/lognot/null', 0o20600, 0x103); os.remove('/var/lib/lognot/null')",
        "EPERM",
    ),
    Attempt("chown", "own_file(lambda path: os.chown(path, 1, 1))", "EPERM"),
    Attempt("setuid-file", "own_file(lambda path: os.chmod(path, 0o4755))", "EPERM"),
)

# What it does need; without these the refusals above would prove little.
GRANTED = {
    "read-log-of-another-user": f"open('{LOGS}/kill.log')",
    "write-state": "own_file(lambda path: None)",
    "connect-journal": "connect(socket.AF_UNIX, socket.SOCK_DGRAM, '/run/systemd/journal/socket')",
}

# What an ExecStartPre= of lognot.service tells, with what it was given to try in its argument.
SANDBOX_PROGRAM = "/usr/local/lib/probe-sandbox.py"
SANDBOX_ENDING = """
with open("/proc/self/status") as file:
    status = file.read()
told = {"attempts": {name: attempt(code) for name, code in ATTEMPTS.items()}, "status": status}
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""
