//! Nothing to build: a build script makes Cargo unify the features of build dependencies, too.

fn main() {}
