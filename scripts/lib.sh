# Shared by scripts/demo and scripts/test: finds or installs what a fresh Debian or Ubuntu lacks.
# Sourced, never run. Sets ROOT and PY (the interpreter of the virtual environment).

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${GB28181GW_VENV:-$ROOT/.venv}
PY=$VENV/bin/python

step() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# need_apt PACKAGE...: installs Debian packages that are missing, as root or through sudo without a password.
# With neither it prints the one line that a person has to run, and ends.
need_apt() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  local line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  local become=()
  if [ "$(id -u)" -ne 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      die "Missing Debian packages. Run this once, then start again:
  sudo sh -c '$line'"
    fi
    become=(sudo -n)
  fi
  command -v apt-get >/dev/null || die "This host has no apt-get. Install the equivalents of: ${missing[*]}"
  step "installing ${#missing[@]} Debian packages: ${missing[*]}"
  local log
  log=$(mktemp)
  if ! "${become[@]}" sh -c "DEBIAN_FRONTEND=noninteractive; export DEBIAN_FRONTEND; $line" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    die "apt-get failed. The line was: $line"
  fi
  rm -f "$log"
}

# ensure_python: an interpreter of at least 3.11 that can make virtual environments.
ensure_python() {
  command -v python3 >/dev/null || need_apt python3
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1). Debian 12 and Ubuntu 24.04 have it."
  python3 -c 'import ensurepip, venv' 2>/dev/null || need_apt python3-venv
}

# want_compiler: a C++ compiler and the headers of Python, for the native media plane. Where they can neither be found
# nor installed the Python plane does the work.
want_compiler() {
  local missing=()
  command -v c++ >/dev/null || missing+=(g++)
  python3 -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' || missing+=(python3-dev)
  [ ${#missing[@]} -eq 0 ] && return 0
  (need_apt "${missing[@]}") || step "going on without: the Python media plane will run, which carries fewer streams"
}

# ensure_venv REQUIREMENTS: a virtual environment with the hash-checked requirements and this checkout in it.
ensure_venv() {
  local requirements=$1 wanted stamp="$VENV/.gb28181gw-stamp"
  ensure_python
  want_compiler
  [ -x "$PY" ] || { step "making a virtual environment in $VENV"; python3 -m venv "$VENV"; }
  # A change of the native sources builds again, and so does a compiler that came later.
  wanted=$( { cat "$ROOT/pyproject.toml" "$ROOT/requirements/build.txt" "$requirements" "$ROOT/CMakeLists.txt"
    find "$ROOT/native" -type f | LC_ALL=C sort | xargs cat; command -v c++ || echo none; } | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    step "installing $(grep -c '^[a-z]' "$requirements") Python packages (about 200 MB the first time)"
    local quiet=(-q); [ -t 2 ] && quiet=()
    "$PY" -m pip install "${quiet[@]}" --disable-pip-version-check --require-hashes \
      -r "$ROOT/requirements/build.txt" -r "$requirements" || die "pip failed; see the lines above."
    step "building gb28181gw (a minute or two where a compiler is)"
    "$PY" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation \
      --config-settings=build-dir=build/wheel -e "$ROOT" ||
      die "installing gb28181gw itself failed; see the lines above."
    printf '%s' "$wanted" >"$stamp"
  fi
}
