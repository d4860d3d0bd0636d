"""What administrators let actions do, as data: the action, and what shows from outside that it was done.

Each stands for a kind of actions; what all of them need is what lognot-exec.service leaves open.
"""

from __future__ import annotations

from dataclasses import dataclass

ADDRESS = "203.0.113.66"
LINE = f"Failed password for root from {ADDRESS} port 22"
REGEX = r"from (\S+) port"  # $1 of every action is ADDRESS
LOGS = "/var/log/probes"


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing that actions do.

    Attributes:
        action: as in lognot.conf: $1 is from the log, \\$ is the shell's.
        check: sh, run as root outside of the service: succeeds if, and only if, the action did it.
        packages: what it takes beside a minimal Debian.
        uid: of the item.
        gid: of the item.
        prepare: sh, run as root outside of the service before lognot starts.
    """

    name: str
    action: str
    check: str
    packages: str = ""
    uid: str = ""
    gid: str = ""
    prepare: str = ""


# What several probes use: a user, who may use sudo, and a directory for what actions find out; and secrets.
PREPARE = """
mkdir -m 1777 /run/probes
groupadd operators
useradd -m -G operators alice
echo 'alice ALL=(root) NOPASSWD: /usr/bin/touch' >/etc/sudoers.d/alice
echo "127.0.0.1 $(uname -n) attacked" >>/etc/hosts
mkdir -p /etc/ssh /etc/ssl/private
echo secret >/etc/ssh/ssh_host_ed25519_key
echo secret >/etc/ssl/private/probe.key
"""

# In a check, `soon COMMAND…` waits for what others do later. PATIENCE is how often it looks.
SOON = """
not() {
    ! "$@"
}
soon() {
    looked=0
    until "$@" >/dev/null 2>&1; do
        looked=$((looked + 1))
        [ "$looked" -lt "$PATIENCE" ] || return 1
        sleep 0.1
    done
}
"""

FIREWALL = (
    Probe(
        "iptables-nft",
        "iptables-nft -w -I INPUT -s $1 -j DROP",
        f"iptables-nft -w -S INPUT | grep -x -e '-A INPUT -s {ADDRESS}/32 -j DROP'",
        "iptables",
    ),
    # AF_INET raw sockets and setsockopt(2) where the one above uses netlink.
    Probe(
        "iptables-legacy",
        "iptables-legacy -w -I INPUT -s $1 -j DROP",
        f"iptables-legacy -w -S INPUT | grep -x -e '-A INPUT -s {ADDRESS}/32 -j DROP'",
        "iptables",
    ),
    Probe(
        "ip6tables",
        "ip6tables -w -I INPUT -s 2001:db8::66 -j DROP",
        "ip6tables -w -S INPUT | grep -x -e '-A INPUT -s 2001:db8::66/128 -j DROP'",
        "iptables",
    ),
    Probe(
        "ipset",
        "ipset create blocked hash:ip timeout 600 && ipset -exist add blocked $1",
        f"ipset test blocked {ADDRESS}",
        "ipset",
    ),
    Probe(
        "nft",
        r"nft add table inet blocked && nft add set inet blocked addresses '{ type ipv4_addr; }' &&"
        r' nft add element inet blocked addresses "{ $1 }"',
        f"nft get element inet blocked addresses '{{ {ADDRESS} }}'",
        "nftables",
    ),
    Probe("ip-route", "ip route add blackhole $1", f"ip route | grep '^blackhole {ADDRESS}'", "iproute2"),
    Probe(
        "ip-address",
        "ip address add 192.0.2.1/32 dev lo",
        "ip address show dev lo | grep 'inet 192.0.2.1/32'",
        "iproute2",
    ),
    # Drops the connections that a new firewall rule does not concern.
    Probe(
        "conntrack",
        "conntrack -D -s $1",
        f"! conntrack -L -s {ADDRESS} | grep {ADDRESS}",
        "conntrack",
        prepare=f"conntrack -I -s {ADDRESS} -d 192.0.2.1 -p tcp --sport 1000 --dport 22"
        " --state ESTABLISHED -t 600",
    ),
    # A mount in /run/netns that others see.
    Probe("ip-netns", "ip netns add jail", "ip netns exec jail ip link show dev lo", "iproute2"),
    Probe(
        "tc",
        "tc qdisc add dev lo root pfifo limit 66",
        "tc qdisc show dev lo | grep 'limit 66p'",
        "iproute2",
    ),
    Probe(
        "sysctl",
        "sysctl -w net.ipv4.tcp_max_syn_backlog=666",
        "[ $(sysctl -n net.ipv4.tcp_max_syn_backlog) = 666 ]",
        "procps",
    ),
)

NETWORK = (
    Probe(
        "tcp-connect",
        "echo blocked $1 | nc -N -w 10 127.0.0.1 7001",
        f"soon grep -x 'blocked {ADDRESS}' /run/probes/tcp-connect",
        "netcat-openbsd",
        prepare="systemd-run -q -p Type=exec --unit=probe-listener"
        " sh -c 'nc -l 127.0.0.1 7001 >/run/probes/tcp-connect';"
        " until grep -q ':1B59 00000000:0000 0A' /proc/net/tcp; do sleep 0.1; done",  # it listens
    ),
    # A port below 1024; a client that tries until somebody listens.
    Probe(
        "tcp-listen",
        "nc -l 127.0.0.1 702 >/run/probes/tcp-listen",
        "cmp /etc/debian_version /run/probes/tcp-listen",
        "netcat-openbsd",
        prepare="systemd-run -q -p Type=exec --unit=probe-client"
        " sh -c 'until nc -N 127.0.0.1 702 </etc/debian_version; do sleep 0.1; done'",
    ),
    # By a capability in the file, which no_new_privs would take away. Debian 13 has a sysctl instead.
    Probe(
        "ping-as-user",
        "ping -c 1 -W 5 127.0.0.1 >/run/probes/ping",
        "grep ' 1 received' /run/probes/ping && [ $(stat -c %U /run/probes/ping) = alice ]",
        "iputils-ping libcap2-bin",
        uid="alice",
        prepare="setcap cap_net_raw+ep $(command -v ping)",
    ),
    # What tcpdump and arping begin with.
    Probe(
        "packet-socket",
        'python3 -c \'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 768).bind(("lo", 0));'
        ' open("/run/probes/packet", "w").write("bound")\'',
        "grep bound /run/probes/packet",
        "python3",
    ),
    Probe("hostname", "hostname attacked", "[ $(uname -n) = attacked ]", "hostname"),
)

MAIL = (
    Probe(
        "mail-from-root",
        r"printf '%s\n' $@ | mail -s 'probe from root' root",
        f"soon grep -s 'Subject: probe from root' /var/mail/root && grep '{LINE}' /var/mail/root",
        "postfix bsd-mailx",
    ),
    # postdrop is setgid: it writes into a directory that alice cannot enter.
    Probe(
        "mail-from-user",
        r"printf '%s\n' $@ | mail -s 'probe from a user' root",
        "soon grep -s 'Subject: probe from a user' /var/mail/root && grep '^From: .*alice' /var/mail/root",
        "postfix bsd-mailx",
        uid="alice",
    ),
)

SERVICES = (
    Probe(
        "systemctl-restart",
        "systemctl restart probe-restarted",
        "systemctl is-active probe-restarted && [ $(cat /run/probes/restarted) !="
        " $(systemctl show -P InvocationID probe-restarted) ]",
        prepare="systemd-run -q -p Type=exec --unit=probe-restarted sleep infinity;"
        " systemctl show -P InvocationID probe-restarted >/run/probes/restarted",
    ),
    Probe(
        "systemctl-stop",
        "systemctl stop probe-stopped",
        "soon not systemctl is-active probe-stopped",
        prepare="systemd-run -q -p Type=exec --unit=probe-stopped sleep infinity",
    ),
    Probe(
        "systemctl-mask",
        "systemctl mask probe-masked.service",
        "[ $(systemctl show -P LoadState probe-masked) = masked ]",
    ),
    Probe(
        "unit-drop-in",
        r"cd /etc/systemd/system && mkdir -p cron.service.d &&"
        r" printf '[Service]\nNice=7\n' >cron.service.d/probe.conf && systemctl daemon-reload",
        "[ $(systemctl show -P Nice cron) = 7 ]",
        "cron",
    ),
    Probe(
        "set-property",
        "systemctl set-property --runtime probe-limited.service MemoryMax=64M",
        "[ $(systemctl show -P MemoryMax probe-limited) = 67108864 ]",
        prepare="systemd-run -q -p Type=exec --unit=probe-limited sleep infinity",
    ),
    # The same by hand: /sys/fs/cgroup is writable.
    Probe(
        "cgroup-write",
        "echo 66 >/sys/fs/cgroup/system.slice/probe-cgroup.service/cgroup.max.descendants",
        "[ $(cat /sys/fs/cgroup/system.slice/probe-cgroup.service/cgroup.max.descendants) = 66 ]",
        prepare="systemd-run -q -p Type=exec --unit=probe-cgroup sleep infinity",
    ),
    Probe(
        "systemd-run",
        "systemd-run --wait --collect --pipe touch /etc/probe-systemd-run",
        "[ -e /etc/probe-systemd-run ]",
    ),
    # Unblock later.
    Probe(
        "systemd-run-timer",
        "systemd-run --unit=probe-later --on-active=600 iptables -w -D INPUT -s $1 -j DROP",
        "systemctl is-active probe-later.timer",
    ),
    Probe(
        "dbus-as-user",
        "busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus GetId"
        " >/run/probes/dbus",
        "busctl --system call org.freedesktop.DBus /org/freedesktop/DBus org.freedesktop.DBus GetId"
        " | cmp - /run/probes/dbus",
        "dbus",
        uid="alice",
    ),
    Probe(
        "shutdown-scheduled",
        "shutdown -r +600 'too many errors'",
        "[ -e /run/systemd/shutdown/scheduled ]",
    ),
    # Where all of this runs.
    Probe(
        "own-unit",
        "cat /proc/self/cgroup >/run/probes/unit",
        "grep /lognot-exec.service /run/probes/unit",
    ),
    Probe(
        "logger",
        "logger -t probe-logger -p auth.warning -- blocked $1",
        f"journalctl --sync && journalctl -t probe-logger -o cat | grep -x 'blocked {ADDRESS}'",
    ),
)

OTHER_USERS = (
    Probe(
        "sudo",
        "sudo -u alice touch /run/probes/sudo",
        "[ $(stat -c %U /run/probes/sudo) = alice ]",
        "sudo",
    ),
    Probe(
        "sudo-as-user",
        "sudo -n touch /etc/probe-sudo",
        "[ $(stat -c %U /etc/probe-sudo) = root ]",
        "sudo",
        uid="alice",
    ),
    Probe(
        "su",
        r"su -s /bin/sh -c 'touch \$HOME/probe-su' alice",
        "[ $(stat -c %U /home/alice/probe-su) = alice ]",
    ),
    Probe(
        "runuser",
        "runuser -u alice touch /run/probes/runuser",
        "[ $(stat -c %U /run/probes/runuser) = alice ]",
    ),
    Probe(
        "setpriv",
        "setpriv --reuid=alice --regid=alice --init-groups touch /run/probes/setpriv",
        "[ $(stat -c %U /run/probes/setpriv) = alice ]",
    ),
    Probe(
        "uid-and-gid",
        "touch /run/probes/uid-and-gid",
        "[ $(stat -c %U:%G /run/probes/uid-and-gid) = alice:adm ]",
        uid="alice",
        gid="adm",
    ),
    Probe(
        "supplementary-group",
        "touch /srv/operators/probe",
        "[ $(stat -c %U /srv/operators/probe) = alice ]",
        uid="alice",
        prepare="install -d -m 770 -g operators /srv/operators",
    ),
    Probe(
        "own-home",
        r"echo $1 >~/probe-home && echo $1 >\$HOME/probe-home",
        f"grep -x {ADDRESS} /home/alice/probe-home",
        uid="alice",
    ),
    # The account that the package makes for actions.
    Probe(
        "lognot-action",
        "id -un >/run/probes/lognot-action",
        "[ $(cat /run/probes/lognot-action) = _lognot-action ]",
        uid="_lognot-action",
    ),
    Probe(
        "useradd",
        "useradd -r probe-added",
        "id probe-added",
        "passwd",
    ),
    Probe(
        "usermod-lock",
        "usermod -L probe-locked",
        "passwd -S probe-locked | grep '^probe-locked L'",
        "passwd",
        prepare="useradd -p hash probe-locked",
    ),
    # at and crontab are setuid and setgid, cron's spool is their group's alone.
    Probe(
        "at-as-user",
        r"echo true | at tomorrow",
        "atq | grep alice",
        "at",
        uid="alice",
    ),
    Probe(
        "crontab-as-user",
        "echo '0 4 * * * true' | crontab -",
        "crontab -u alice -l | grep -x '0 4 \\* \\* \\* true'",
        "cron",
        uid="alice",
    ),
)

PROCESSES = (
    Probe(
        "kill",
        r"kill \$(systemctl show -P MainPID probe-kill)",
        "soon not systemctl is-active probe-kill",
        prepare="systemd-run -q -p Type=exec --unit=probe-kill -p User=alice sleep infinity",
    ),
    Probe(
        "pkill",
        "pkill -u alice -f 'sleep 86401'",
        "soon not systemctl is-active probe-pkill",
        "procps",
        prepare="systemd-run -q -p Type=exec --unit=probe-pkill -p User=alice sleep 86401",
    ),
    Probe(
        "killall",
        "killall probe-program",
        "soon not systemctl is-active probe-killall",
        "psmisc",
        prepare="cp /bin/sleep /usr/local/bin/probe-program;"
        " systemd-run -q -p Type=exec --unit=probe-killall -p User=alice"
        " /usr/local/bin/probe-program infinity",
    ),
    # To a higher priority, which takes a capability.
    Probe(
        "renice",
        r"renice -n -5 -p \$(systemctl show -P MainPID probe-renice)",
        "[ $(ps -o ni= -p $(systemctl show -P MainPID probe-renice)) = -5 ]",
        "procps",
        prepare="systemd-run -q -p Type=exec --unit=probe-renice -p User=alice sleep infinity",
    ),
    Probe(
        "nice",
        r"nice -n -10 sh -c 'ps -o ni= -p \$\$ >/run/probes/nice'",
        "[ $(cat /run/probes/nice) = -10 ]",
        "procps",
    ),
    Probe(
        "ionice",
        r"ionice -c 1 -n 3 -p \$(systemctl show -P MainPID probe-renice)",
        "ionice -p $(systemctl show -P MainPID probe-renice) | grep -x 'realtime: prio 3'",
    ),
    Probe(
        "ulimit",
        "ulimit -Sn 2048 && ulimit -n >/run/probes/ulimit",
        "[ $(cat /run/probes/ulimit) = 2048 ]",
    ),
    # A service that crashes in an action may leave a core.
    Probe(
        "core-dump",
        "ulimit -c unlimited && ulimit -c >/run/probes/core",
        "[ $(cat /run/probes/core) = unlimited ]",
        uid="alice",
    ),
    Probe(
        "prlimit",
        r"prlimit --core=0 --pid \$(systemctl show -P MainPID probe-cgroup)",
        "prlimit --core -o HARD --noheadings --pid $(systemctl show -P MainPID probe-cgroup) | grep -x ' *0'",
    ),
    Probe(
        "ps-sees-all",
        "ps -e -o user= -o args= >/run/probes/ps",
        "grep '^root .*/systemd-journald' /run/probes/ps &&"
        " grep '^alice .*bin/probe-seen infinity' /run/probes/ps",
        "procps",
        prepare="cp /bin/sleep /usr/local/bin/probe-seen;"
        " systemd-run -q -p Type=exec --unit=probe-seen -p User=alice /usr/local/bin/probe-seen infinity",
    ),
    Probe(
        "proc-of-others",
        r"readlink /proc/\$(systemctl show -P MainPID probe-seen)/cwd >/run/probes/proc",
        "[ $(cat /run/probes/proc) = / ]",
    ),
    # A daemon that an action leaves behind.
    Probe(
        "background",
        "setsid -f sleep 86402 >/dev/null 2>&1",
        "soon pgrep -f '^sleep 86402'",
    ),
    # Memory that is writable and executable: what Java, node and PCRE's JIT do.
    Probe(
        "writable-code",
        "python3 -c 'from mmap import *; mmap(-1, 4096, prot=PROT_READ | PROT_WRITE | PROT_EXEC);"
        ' open("/run/probes/code", "w").write("mapped")\'',
        "grep mapped /run/probes/code",
        "python3",
    ),
)

# What containers are made with.
NAMESPACES = (
    Probe(
        "unshare-net",
        "unshare -n readlink /proc/self/ns/net >/run/probes/unshare",
        "grep net: /run/probes/unshare && [ $(cat /run/probes/unshare) != $(readlink /proc/1/ns/net) ]",
    ),
    Probe(
        "unshare-pid",
        r"unshare -m -p -u -i -f --mount-proc sh -c 'echo \$\$ >/run/probes/pid'",
        "[ $(cat /run/probes/pid) = 1 ]",
    ),
    Probe(
        "nsenter",
        "nsenter -t 1 -m -p -n readlink /proc/1/ns/net >/run/probes/nsenter",
        "[ $(cat /run/probes/nsenter) = $(readlink /proc/1/ns/net) ]",
    ),
    Probe(
        "chroot",
        "chroot --userspec=alice / touch /run/probes/chroot",
        "[ $(stat -c %U /run/probes/chroot) = alice ]",
    ),
    Probe(
        "mount",
        "mkdir /mnt/probe && mount -t tmpfs probe /mnt/probe",
        "findmnt -t tmpfs /mnt/probe",
        "mount",
    ),
    Probe(
        "remount-read-only",
        "mount -o remount,ro /mnt/data",
        "findmnt -O ro /mnt/data",
        "mount",
        prepare="mkdir /mnt/data && mount -t tmpfs data /mnt/data",
    ),
    Probe(
        "umount",
        "umount /mnt/gone",
        "! findmnt /mnt/gone",
        "mount",
        prepare="mkdir /mnt/gone && mount -t tmpfs gone /mnt/gone",
    ),
)

# What ProtectSystem=, ProtectHome=, PrivateTmp= and PrivateDevices= would take away.
WRITTEN = (
    *("/root", "/home", "/etc", "/usr", "/usr/local", "/var/lib", "/var/log", "/var/tmp", "/srv", "/opt"),
    *("/run", "/boot", "/mnt", "/tmp", "/dev/shm"),
)

FILES = (
    *(
        Probe(
            f"write{directory.replace('/', '-')}",
            f"echo $1 >{directory}/probe-write",
            f"grep -x {ADDRESS} {directory}/probe-write",
        )
        for directory in WRITTEN
    ),
    Probe(
        "read-tmp",
        "cat /tmp/probe-shared >/run/probes/tmp",
        "cmp /tmp/probe-shared /run/probes/tmp",
        prepare="echo shared >/tmp/probe-shared",
    ),
    # The umask: /etc/hosts.deny that others cannot read denies nothing.
    Probe(
        "hosts-deny",
        "echo ALL: $1 >>/etc/hosts.deny",
        f"grep -x 'ALL: {ADDRESS}' /etc/hosts.deny && [ $(stat -c %a /etc/hosts.deny) = 644 ]",
        prepare="rm -f /etc/hosts.deny",
    ),
    Probe(
        "read-shadow",
        "cat /etc/shadow >/root/probe-shadow",
        # Of others a password may be changed since.
        '[ "$(grep ^root: /etc/shadow)" = "$(grep ^root: /root/probe-shadow)" ]',
    ),
    Probe(
        "dd",
        "dd if=/dev/zero of=/var/lib/probe-dd bs=64K count=64 conv=fsync status=none",
        "[ $(stat -c %s /var/lib/probe-dd) = 4194304 ]",
    ),
    Probe(
        "chown",
        "touch /srv/probe-chown && chown alice:adm /srv/probe-chown",
        "[ $(stat -c %U:%G /srv/probe-chown) = alice:adm ]",
    ),
    Probe(
        "chmod-setuid",
        "cp /bin/true /usr/local/bin/probe-setuid && chmod u+s /usr/local/bin/probe-setuid",
        "[ -u /usr/local/bin/probe-setuid ]",
    ),
    Probe(
        "setcap",
        "cp /bin/true /usr/local/bin/probe-cap && setcap cap_net_raw+ep /usr/local/bin/probe-cap",
        "getcap /usr/local/bin/probe-cap | grep cap_net_raw",
        "libcap2-bin",
    ),
    Probe(
        "setfacl",
        "touch /srv/probe-acl && setfacl -m u:alice:rw /srv/probe-acl",
        "getfacl -p /srv/probe-acl | grep -x user:alice:rw-",
        "acl",
    ),
    Probe(
        "find-delete",
        "find /home/alice/cache -type f -delete",
        "[ -d /home/alice/cache ] && [ ! -e /home/alice/cache/file ]",
        prepare="cd /home/alice && mkdir -m 700 cache && touch cache/file && chown -R alice cache",
    ),
    Probe(
        "tar",
        "tar -C /etc -czf /srv/probe-etc.tgz ./ssh",
        "tar -tzf /srv/probe-etc.tgz ./ssh/ssh_host_ed25519_key",
    ),
    Probe(
        "rsync",
        "rsync -a --exclude=/alice/cache /home/ /srv/probe-rsync/",
        "[ $(stat -c %U /srv/probe-rsync/alice) = alice ]",
        "rsync",
    ),
    Probe(
        "logrotate",
        "logrotate --force /etc/logrotate.d/probe",
        "grep old /var/log/probe-rotated.log.1",
        "logrotate",
        prepare="echo old >/var/log/probe-rotated.log;"
        r" printf '/var/log/probe-rotated.log {\nrotate 3\n}\n' >/etc/logrotate.d/probe",
    ),
    Probe(
        "dpkg",
        "dpkg --install /root/probe.deb",
        "[ -e /usr/share/probe/file ]",
        prepare=r"""
            mkdir -p /root/deb/DEBIAN /root/deb/usr/share/probe && touch /root/deb/usr/share/probe/file
            printf 'Package: probe\nVersion: 1\nArchitecture: all\nMaintainer: a@b\nDescription: c\n' \
                >/root/deb/DEBIAN/control
            dpkg-deb --build /root/deb /root/probe.deb""",
    ),
)

PROBES = FIREWALL + NETWORK + MAIL + SERVICES + OTHER_USERS + PROCESSES + NAMESPACES + FILES


@dataclass(frozen=True, slots=True)
class Limit:
    """What lognot-exec.service keeps from actions, and by which directive; outside of it, it works."""

    name: str
    action: str
    directive: str
    packages: str = ""


LIMITS = (
    Limit("device-node", "mknod /run/probes/null c 1 3", "CapabilityBoundingSet=~CAP_MKNOD"),
    Limit(
        "immutable-file",
        "touch /srv/immutable && chattr +i /srv/immutable",
        "CapabilityBoundingSet=~CAP_LINUX_IMMUTABLE",
        "e2fsprogs",
    ),
    Limit("realtime-scheduling", "chrt -f 1 true", "RestrictRealtime=yes"),
    Limit("trace", "strace -o /dev/null true", "SystemCallFilter=~@debug", "strace"),
    Limit("personality", "setarch -R true", "LockPersonality=yes"),
)
