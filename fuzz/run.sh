#!/bin/sh
# Runs a fuzzer: fuzz/run.sh TARGET [SECONDS]. What it finds goes to fuzz/artifacts, new inputs to fuzz/work, both unversioned.
set -eu
target=$1
seconds=${2:-480}
cd "$(dirname "$0")"
# The workspace's own versions, so that what it has compiled already is used.
[ -f Cargo.lock ] || cp ../Cargo.lock .
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-../target/fuzz}" RUSTC_WRAPPER="$PWD/cover.sh"
cargo build --features sql --bin "$target"
mkdir -p "work/$target" artifacts
dictionary=
[ ! -f "dictionaries/$target.dict" ] || dictionary="-dict=dictionaries/$target.dict"
exec "$CARGO_TARGET_DIR/debug/$target" "work/$target" "corpus/$target" $dictionary \
    -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
    -print_final_stats=1 -artifact_prefix="artifacts/$target-"
