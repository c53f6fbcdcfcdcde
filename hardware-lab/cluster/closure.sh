#!/bin/sh
# closure.sh OUT [FILE...]: makes OUT a root file system that runs the programs and libraries already in it and each FILE:
# copies FILE and every shared library that any of them loads to the same path under OUT, and adds the user and /tmp.
set -eu
out=$1
shift
copy() {
  mkdir -p "$out$(dirname "$1")"
  cp -L "$1" "$out$1"
}
loader=$(ls /lib64/ld-linux-x86-64.so.2 /lib/ld-linux-aarch64.so.1 2>/dev/null || true)
for file in "$@"; do copy "$file"; done
copy "$loader"
find "$out/usr/bin" "$out/usr/lib" "$out/opt" -type f \( -perm -100 ! -name '*.py' -o -name '*.so*' \) 2>/dev/null | while read -r file; do
  # A static program has no list and needs nothing; a missing library must stop the build.
  if list=$("$loader" --list "$file" 2>/dev/null); then
    case $list in *'not found'*) echo "$file: $list" >&2; exit 1 ;; esac
    echo "$list" | sed -nE 's/.* => (\/[^ ]+) .*/\1/p'
  elif ! "$loader" --verify "$file" 2>/dev/null; then
    echo "$file is not dynamically linked: copied alone" >&2
  else
    "$loader" --list "$file" >&2
    exit 1
  fi
done >"$out/.libraries"
sort -u "$out/.libraries" | while read -r library; do copy "$library"; done
rm "$out/.libraries"
mkdir -p "$out/etc"
mkdir -m 1777 "$out/tmp"
echo 'edgeyard:x:65532:65532::/tmp:/nonexistent' >"$out/etc/passwd"
echo 'edgeyard:x:65532:' >"$out/etc/group"
