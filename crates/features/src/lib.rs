//! Nothing but a list of dependencies with the features that the whole workspace asks for: see `Cargo.toml`.
