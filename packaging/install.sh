#!/bin/sh
# Install lognot, or remove what was installed: packaging/install.sh install|install-data|uninstall
#
# The one place that knows every file; the packages are made with it too. install-data is everything but the
# Python package. `make help` names the variables. What install made is listed in DOCDIR/installed, and
# uninstall removes what is listed there and nothing else.
set -eu
umask 022
export LC_ALL=C
cd "$(dirname "$0")/.."

fail() {
    echo "lognot: $*" >&2
    exit 1
}

: "${DESTDIR:=}" "${PREFIX:=/usr/local}" "${PYTHON:=/usr/bin/python3}" "${BYTECOMPILE:=yes}" "${RECORD:=yes}"
case $DESTDIR in /* | '') ;; *) fail "DESTDIR is '$DESTDIR'; expected a path that begins with /" ;; esac
case $PREFIX in /?*) ;; *) fail "PREFIX is '$PREFIX'; expected a path that begins with /" ;; esac
PREFIX=${PREFIX%/} DESTDIR=${DESTDIR%/}
"$PYTHON" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$PYTHON is not Python 3.11 or later"

# Where this Python looks for packages below PREFIX; where it does not, the usual place, which the program adds.
python_directory() {
    "$PYTHON" -I -c '
import site, sys, sysconfig
prefix = sys.argv[1]
searched = [place for place in site.getsitepackages() if place.startswith(f"{prefix}/lib/")]
print(*searched[:1] or [sysconfig.get_path("purelib", "posix_prefix", vars={"base": prefix})])' "$PREFIX"
}

case $PREFIX in /usr | /usr/local) etc=/etc ;; *) etc=$PREFIX/etc ;; esac
: "${SYSCONFDIR:=$etc}"
: "${SBINDIR:=$PREFIX/sbin}"
: "${PYTHONDIR:=$(python_directory)}"
: "${UNITDIR:=$PREFIX/lib/systemd/system}"
: "${CATALOGDIR:=$PREFIX/lib/systemd/catalog}"
: "${SYSUSERSDIR:=$PREFIX/lib/sysusers.d}"
: "${TMPFILESDIR:=$PREFIX/lib/tmpfiles.d}"
: "${MANDIR:=$PREFIX/share/man}"
: "${DOCDIR:=$PREFIX/share/doc/lognot}"
: "${BASHCOMPDIR:=$PREFIX/share/bash-completion/completions}"
: "${ZSHCOMPDIR:=$PREFIX/share/zsh/site-functions}"

units='lognot-exec.socket lognot-exec.service lognot.service'
config=$SYSCONFDIR/lognot.conf
record=$DOCDIR/installed
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
made=$scratch/made # files, and directories with a / at their end
before=$scratch/before
: >"$made"
mkdir -p "$DESTDIR/"
cat "$DESTDIR$record" >"$before" 2>/dev/null || :

# The sources name the paths of the packages. Text that goes elsewhere names where things are then.
adapt() {
    sed -e "s|/usr/sbin/lognot|$SBINDIR/lognot|g" -e "s|/etc/lognot\.|$SYSCONFDIR/lognot.|g" \
        -e "s|/usr/lib/systemd/system/lognot|$UNITDIR/lognot|g" \
        -e "s|/usr/lib/systemd/catalog/lognot|$CATALOGDIR/lognot|g" -e "s|/usr/share/doc/lognot/|$DOCDIR/|g" \
        -e "s|@PYTHON@|$PYTHON|g" -e "s|@PYTHONDIR@|$PYTHONDIR|g" "$1" >"$scratch/adapted"
    touch -r "$1" "$scratch/adapted"
}

put_directory() {
    if [ ! -d "$DESTDIR$1" ]; then
        put_directory "$(dirname "$1")"
        mkdir "$DESTDIR$1"
        echo "${1%/}/" >>"$made"
    fi
}

put() { # SOURCE PATH [MODE]
    put_directory "$(dirname "$2")"
    adapt "$1"
    install -p -m "${3:-644}" "$scratch/adapted" "$DESTDIR$2"
    echo "$2" >>"$made"
}

put_config() {
    adapt etc/lognot.conf
    if [ ! -e "$DESTDIR$config" ]; then
        put etc/lognot.conf "$config"
        return
    fi
    if ! cmp -s "$scratch/adapted" "$DESTDIR$config"; then
        put etc/lognot.conf "$config.new"
        echo "$DESTDIR$config is left as it is; the new one is $DESTDIR$config.new"
    fi
    if grep -qxF "$config" "$before"; then echo "$config" >>"$made"; fi
}

install_data() {
    put packaging/lognot.in "$SBINDIR/lognot" 755
    put_config
    put_directory "$SYSCONFDIR/lognot.d"
    for unit in $units; do
        put "packaging/systemd/$unit" "$UNITDIR/$unit"
    done
    put packaging/systemd/lognot.sysusers "$SYSUSERSDIR/lognot.conf"
    put packaging/systemd/lognot.tmpfiles "$TMPFILESDIR/lognot.conf"
    put packaging/systemd/lognot.catalog "$CATALOGDIR/lognot.catalog"
    put man/lognot.8 "$MANDIR/man8/lognot.8"
    put man/lognot.conf.5 "$MANDIR/man5/lognot.conf.5"
    put packaging/completions/lognot.bash "$BASHCOMPDIR/lognot"
    put packaging/completions/_lognot "$ZSHCOMPDIR/_lognot"
    for document in README.md CHANGELOG.md LICENSE docs/*.md; do # docs/ stays docs/, for the links between them
        put "$document" "$DOCDIR/$document"
    done
}

install_python() {
    for module in src/lognot/*.py; do
        put "$module" "$PYTHONDIR/lognot/${module##*/}"
    done
}

# Files that an earlier install made and this one did not. Directories stay in the list.
remove_old_files() {
    while read -r path; do
        case $path in
            */) if [ -d "$DESTDIR$path" ]; then echo "$path" >>"$made"; fi ;;
            *) if ! grep -qxF "$path" "$made"; then rm -f "$DESTDIR$path"; fi ;;
        esac
    done <"$before"
}

# The service cannot: to it the file system is read-only.
byte_compile() {
    rm -rf "$DESTDIR$PYTHONDIR/lognot/__pycache__"
    "$PYTHON" -I -m compileall -q -s "$DESTDIR" -p / "$DESTDIR$PYTHONDIR/lognot"
    echo "$PYTHONDIR/lognot/__pycache__/" >>"$made"
}

# Whether systemd would be left with a service, a link or a wish to start that has no unit any more.
is_in_use() {
    [ -d /run/systemd/system ] || return 1
    for unit in $units; do
        # Empty where systemd knows no such unit; it may be a link, or another lognot's.
        found=$(systemctl show -P FragmentPath "$unit")
        [ "$(readlink -f "$found")" = "$(readlink -f "$UNITDIR/$unit")" ] || continue
        case $(systemctl is-active "$unit")/$(systemctl is-enabled "$unit") in
            inactive/static | inactive/disabled | failed/static | failed/disabled) ;;
            *) return 0 ;;
        esac
    done
    return 1
}

uninstall() {
    [ -s "$before" ] || fail "nothing to remove: there is no $DESTDIR$record"
    if [ -z "$DESTDIR" ] && is_in_use; then
        fail "is in use; first: systemctl stop lognot.service && systemctl disable $units"
    fi
    adapt etc/lognot.conf
    while read -r path; do
        case $path in
            */__pycache__/) rm -rf "$DESTDIR${path%/}" ;;
            */) ;;
            "$config")
                if cmp -s "$scratch/adapted" "$DESTDIR$config"; then
                    rm "$DESTDIR$config"
                elif [ -e "$DESTDIR$config" ]; then
                    echo "$DESTDIR$config is left: it is not what was installed"
                fi
                ;;
            *) rm -f "$DESTDIR$path" ;;
        esac
    done <"$before"
    grep '/$' "$before" | sort -r | while read -r path; do # the innermost first
        if [ -d "$DESTDIR$path" ]; then rmdir --ignore-fail-on-non-empty "$DESTDIR$path"; fi
    done
}

say_what_is_next() {
    [ -z "$DESTDIR" ] || return 0
    echo "lognot is installed. Nothing was started. Next, as root:"
    echo "    systemd-sysusers $SYSUSERSDIR/lognot.conf"
    echo "    systemd-tmpfiles --create $TMPFILESDIR/lognot.conf"
    case $PREFIX in
        /usr | /usr/local)
            echo "    journalctl --update-catalog"
            echo "    systemctl daemon-reload"
            ;;
        *) # where systemd does not look
            for unit in $units; do
                echo "    systemctl link $UNITDIR/$unit"
            done
            ;;
    esac
    echo "and when $config says what to watch:"
    echo "    $SBINDIR/lognot --test $config"
    echo "    systemctl enable --now lognot.service"
}

case ${1:-} in
    install | install-data)
        install_data
        case $1 in
            install) install_python ;;
            install-data) grep -F "$PYTHONDIR/lognot/" "$before" >>"$made" || : ;; # not made, and not removed
        esac
        echo "$record" >>"$made"
        remove_old_files
        if [ "$1$BYTECOMPILE" = installyes ]; then byte_compile; fi
        if [ "$RECORD" = yes ]; then sort -u "$made" >"$DESTDIR$record"; fi
        say_what_is_next
        ;;
    uninstall) uninstall ;;
    *) fail "usage: packaging/install.sh install|install-data|uninstall" ;;
esac
