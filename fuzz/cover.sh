#!/bin/sh
# RUSTC_WRAPPER of the fuzzers: measures coverage in Ruslo's own crates, and leaves its dependencies as they are, so that
# they are not built anew (DataFusion takes half an hour) and a fuzzer follows our code, not theirs.
case " $* " in
*" --crate-name ruslo_"*)
    exec "$@" -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares \
        -Cllvm-args=-simplifycfg-branch-fold-threshold=0
    ;;
*) exec "$@" ;;
esac
