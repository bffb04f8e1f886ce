# Sourced by ./demo and ./test: what a fresh Debian with Rust still lacks, and where compiled things are kept.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ruslo/target}"

need() { # need COMMAND PACKAGE: installs the Debian package that has the command
  command -v "$1" >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && apt-get install -y -qq "$2" >/dev/null
  else
    echo "'$1' is missing: install the package $2 and try again" >&2
    exit 2
  fi
}

if ! command -v cargo >/dev/null 2>&1; then
  echo "cargo is missing: install Rust from https://rustup.rs and try again" >&2
  exit 2
fi
need cc build-essential

# moto's S3 server, for the tests of checkpoints in a bucket; those tests are skipped where it is missing.
s3_server() {
  local home="${XDG_CACHE_HOME:-$HOME/.cache}/ruslo/moto"
  [ -x "$home/bin/moto_server" ] && return
  rm -rf "$home"
  if ! { python3 -m venv "$home" && "$home/bin/pip" install --quiet 'moto[server]==5.1.22'; }; then
    rm -rf "$home"
    echo "moto could not be installed: the tests of checkpoints in a bucket are skipped" >&2
  fi
}
