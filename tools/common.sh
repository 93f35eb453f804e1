# shellcheck shell=bash
# Sourced by the scripts beside it and by .ci/run: where the house stands, and how a preset of it is built.
# Results go to stdout. Progress goes to stderr, in one line that is redrawn, and only to a terminal.
set -euo pipefail

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd -P)

say() { printf 'tools/%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
  say "$@"
  exit 1
}

has_terminal() { [[ -t 2 && ${TERM:-dumb} != dumb ]]; }

# Runs a command with its output in a file; on a terminal its latest line shows what it is doing.
in_silence() { # FILE COMMAND...
  local file=$1 status=0
  shift
  if has_terminal; then
    "$@" </dev/null 2>&1 | tee "$file" | while IFS= read -r line; do
      [[ -z $line ]] || printf '\r\033[K%.79s' "$line" >&2
    done || status=$?
    printf '\r\033[K' >&2
  else
    "$@" </dev/null >"$file" 2>&1 || status=$?
  fi
  return "$status"
}

# Makes the folder in which a preset is built, and finds out now, not in a compiler's words, that it cannot be.
build_folder() { # FOLDER
  mkdir -p "$1" 2>/dev/null && [[ -w $1 ]] && return
  local nearest=$1 owner me
  until [[ -e $nearest ]]; do nearest=$(dirname "$nearest"); done
  owner=$(stat -c %U "$nearest") me=$(id -un)
  case $me in
    root | "$owner") die "cannot write to $nearest: it is read-only; build in a copy of the checkout" ;;
    *) die "cannot write to $nearest: it belongs to $owner, and you are $me; build in a checkout of your own" ;;
  esac
}

# Configures a preset where that has not been done, or not for what the presets say now, and builds it.
# `configured` says for which place it was done: a checkout that was moved since has to begin afresh.
build() { # PRESET [cmake --build's arguments...]
  local preset=$1 folder=$root/build/$1 fresh=()
  shift
  build_folder "$folder"
  if [[ $(cat "$folder/configured" 2>/dev/null) != "$root" || $root/CMakePresets.json -nt $folder/configured ]]; then
    if [[ -e $folder/CMakeCache.txt ]] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$folder/CMakeCache.txt"; then
      fresh=(--fresh)
    fi
    in_silence "$folder/configure.log" "${wrapped[@]}" cmake "${fresh[@]}" -S "$root" --preset "$preset" ||
      failed "$folder/configure.log" "cmake could not configure the preset $preset"
    printf '%s\n' "$root" >"$folder/configured"
  fi
  in_silence "$folder/build.log" "${wrapped[@]}" cmake --build "$folder" "$@" ||
    failed "$folder/build.log" "the preset $preset does not build"
}

failed() { # LOG WHAT
  grep -Ev '^\[[0-9]+/[0-9]+\] ' "$1" >&2
  die "$2 (the whole of it: $1)"
}

# What building and testing run under. ThreadSanitizer needs it on kernels that randomise more address bits than it knows
# (vm.mmap_rnd_bits above 28); where personality(2) is forbidden, as in many containers, one has to hope.
wrapped=()
without_address_randomisation() {
  if setarch -R true 2>/dev/null; then wrapped=(setarch -R); fi
}
