//! Ruslo's connectors: what tables can stand for.
//!
//! One connector is one folder with the same file names every time (`mod.rs` says its name and options, `options.rs`
//! reads them, `source.rs` and `sink.rs` do the work), one cargo feature and one line in [`registry`]. The planner finds
//! a connector by the name in `'connector' = '..'`; the runtime sees only the traits of `ruslo_core`.

#[cfg(any(feature = "print", feature = "stdout"))]
mod console;
#[cfg(any(feature = "datagen", feature = "nexmark"))]
mod generate;
#[cfg(any(feature = "stdin", feature = "stdout"))]
mod line_format;
#[cfg(any(
    feature = "datagen",
    feature = "filesystem",
    feature = "nexmark",
    feature = "print",
    feature = "stdin",
    feature = "stdout"
))]
#[allow(dead_code, reason = "not all connectors are on")]
mod option;
#[cfg(any(feature = "filesystem", feature = "stdin"))]
mod origins;

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
#[cfg(feature = "stdin")]
pub mod stdin;
#[cfg(feature = "stdout")]
pub mod stdout;

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
    #[cfg(feature = "stdin")]
    let registry = registry.with(stdin::Stdin);
    #[cfg(feature = "stdout")]
    let registry = registry.with(stdout::Stdout);
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
            ("stdin", cfg!(feature = "stdin")),
            ("stdout", cfg!(feature = "stdout")),
        ];
        let expected: Vec<_> = features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn who_can_be_read_or_written_says_what_it_promises() {
        let neither = |name: &&str| {
            let registry = registry();
            let connector = registry.connector(name).unwrap();
            connector.source_guarantee().is_none() && connector.sink_guarantee().is_none()
        };
        assert_eq!(registry().names().find(neither), None);
    }
}
