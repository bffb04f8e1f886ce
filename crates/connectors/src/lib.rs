//! Ruslo's connectors: what tables can stand for.
//!
//! One connector is one folder with the same file names every time (`mod.rs` says its name and options, `options.rs`
//! reads them, `source.rs` and `sink.rs` do the work), one cargo feature and one line in [`registry`]. The planner finds
//! a connector by the name in `'connector' = '..'`; the runtime sees only the traits of `ruslo_core`.

#[cfg(any(feature = "datagen", feature = "nexmark"))]
mod generate;
#[cfg(any(feature = "datagen", feature = "filesystem", feature = "nexmark", feature = "print"))]
#[allow(dead_code, reason = "not all connectors are on")]
mod option;

#[cfg(feature = "blackhole")]
pub mod blackhole;
#[cfg(feature = "datagen")]
pub mod datagen;
#[cfg(feature = "filesystem")]
pub mod filesystem;
#[cfg(feature = "nexmark")]
pub mod nexmark;
#[cfg(feature = "print")]
pub mod print;

use ruslo_core::connector::Registry;

/// The connectors of this build.
///
/// ```
/// let registry = ruslo_connectors::registry();
/// assert!(registry.connector("filesystem").is_ok());
/// assert!(registry.connector("filesytem").is_err());
/// ```
pub fn registry() -> Registry {
    let registry = Registry::default();
    #[cfg(feature = "blackhole")]
    let registry = registry.with(blackhole::Blackhole);
    #[cfg(feature = "datagen")]
    let registry = registry.with(datagen::Datagen);
    #[cfg(feature = "filesystem")]
    let registry = registry.with(filesystem::Filesystem);
    #[cfg(feature = "nexmark")]
    let registry = registry.with(nexmark::Nexmark);
    #[cfg(feature = "print")]
    let registry = registry.with(print::Print);
    registry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_has_its_line_in_the_registry() {
        let names: Vec<_> = registry().names().collect();
        let features = [
            ("blackhole", cfg!(feature = "blackhole")),
            ("datagen", cfg!(feature = "datagen")),
            ("filesystem", cfg!(feature = "filesystem")),
            ("nexmark", cfg!(feature = "nexmark")),
            ("print", cfg!(feature = "print")),
        ];
        let expected: Vec<_> = features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        assert_eq!(names, expected);
    }
}
