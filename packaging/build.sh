#!/bin/sh
# Build a package from the working tree and check it: packaging/build.sh deb|rpm VERSION DIRECTORY
#
# What is built is the tree as git would commit it, in a directory of its own, with VERSION in all the places
# where a version is. The package is put into DIRECTORY.
set -eu
umask 022
cd "$(dirname "$0")/.."
kind=$1 version=$2
mkdir -p "$3"
output=$(cd "$3" && pwd)

# A Python in /usr/local/bin is not the distribution's, and make's variables are not for the makes in here.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
unset MAKEFLAGS MFLAGS MAKELEVEL

need() {
    for program; do
        command -v "$program" >/dev/null || { echo "Missing: $program, to build and check the $kind" >&2; exit 1; }
    done
}

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
tree=$stage/lognot-$version
mkdir "$tree"

# Tracked files that are still there, and new ones that are not ignored.
list_with_git() {
    # shellcheck disable=SC2016  # the inner shell expands it
    git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard |
        xargs -0 sh -c 'for file; do if [ -e "$file" ] || [ -L "$file" ]; then printf "%s\0" "$file"; fi; done' sh
}

export_tree() {
    if [ -e .git ] && command -v git >/dev/null; then
        list_with_git >"$stage/files"
        tar -c --no-recursion --null -T "$stage/files"
    else # an unpacked tarball: all but what .gitignore names
        tar -c --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist --exclude=./.cache \
            --exclude=__pycache__ --exclude='*.pyc' --exclude='*.egg-info' --exclude='.hypothesis' \
            --exclude=.mypy_cache --exclude=.ruff_cache .
    fi | tar -x -C "$tree"
    sed -i "s/^__version__ = .*/__version__ = \"$version\"/" "$tree/src/lognot/__init__.py"
}

build_deb() {
    need dpkg-buildpackage dh dh_python3 lintian
    cp -r packaging/deb "$tree/debian"
    sed -i "s/@VERSION@/$version/" "$tree/debian/changelog"
    if ! (cd "$tree" && dpkg-buildpackage -b -us -uc) >"$stage/log" 2>&1; then
        tail -n 40 "$stage/log" >&2
        exit 1
    fi
    lintian --allow-root --fail-on error,warning "$stage"/*.changes
    echo "lintian has no error and no warning"
    cp "$stage"/*.deb "$output/"
    ls -s --block-size=1 "$output/lognot_${version}_all.deb"
}

build_rpm() {
    need rpmbuild rpmlint
    mkdir "$stage/SOURCES"
    sed "s/@VERSION@/$version/" packaging/rpm/lognot.spec >"$stage/lognot.spec"
    tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner -czf "$stage/SOURCES/lognot-$version.tar.gz" \
        "lognot-$version"
    # Debian's rpm has no packages: its database would only be made anew, in the home directory.
    database=$(rpm --eval '%{_dbpath}')
    if [ -e /etc/debian_version ]; then database=$stage/database; fi
    if ! rpmbuild -ba --define "_topdir $stage" --define "_dbpath $database" "$stage/lognot.spec" \
        >"$stage/log" 2>&1; then
        tail -n 40 "$stage/log" >&2
        exit 1
    fi
    rpmlint -c packaging/rpm/rpmlint.toml "$stage/lognot.spec" "$stage"/RPMS/*/*.rpm "$stage"/SRPMS/*.rpm
    cp "$stage"/RPMS/*/*.rpm "$stage"/SRPMS/*.rpm "$output/"
    ls -s --block-size=1 "$output/lognot-$version"-*.rpm
}

case $kind in
    deb | rpm) ;;
    *) echo "usage: packaging/build.sh deb|rpm VERSION DIRECTORY" >&2 && exit 1 ;;
esac
export_tree
"build_$kind"
