//! The manifest: what one checkpoint consists of. A checkpoint exists once its manifest does.

use std::collections::BTreeMap;
use std::path::Path;

use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::KeyGroupRange;
use ruslo_core::metrics::RowCounts;
use ruslo_core::operator_rows::Redistribution;
use ruslo_core::plan::CompiledPlan;
use ruslo_core::sink::{Committable, Guarantee};
use ruslo_core::source::{Position, SplitWatermark};
use ruslo_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::books::Books;

/// The format version that this build writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 2;

const MAGIC: &str = "ruslo-checkpoint";

/// What one checkpoint consists of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which checkpoint.
    pub epoch: Epoch,
    /// Names this start of the pipeline, kept over restores: part of the names of its output.
    pub run: String,
    /// What the plan was: another one cannot resume from this.
    pub fingerprint: String,
    /// How the plan laid out the state; none in checkpoints of old releases, and of batch jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<CompiledPlan>,
    /// The checkpoint whose content this one is: a resumed process repeats it under a new number before it touches any
    /// output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Epoch>,
    /// The process that wrote it, by a name that no other has: whose a manifest is can be told from its bytes. The store
    /// fills it in; none in version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// Set in savepoints alone: see [`crate::savepoint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<SavepointNote>,
    /// What held if the process died, as it was when the checkpoint was made; none in checkpoints of old releases, and of
    /// batch jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Guarantee>,
    /// What must add up; none in checkpoints of old releases and of what went on from them, and of batch jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub books: Option<Books>,
    /// Whether the pipeline was complete: nothing is left to resume.
    pub finished: bool,
    /// When it was written, in milliseconds since 1970; for people.
    pub written_at: Timestamp,
    /// The state of each operator.
    pub operators: BTreeMap<OperatorId, OperatorEntry>,
}

/// What tells a savepoint from a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavepointNote {
    /// The name of the job that it is of; for people.
    pub job: String,
}

/// What one operator put into a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorEntry {
    /// What a person calls it.
    pub name: String,
    /// Each subtask's part.
    pub subtasks: Vec<SubtaskEntry>,
    /// Sources: how far each lineage is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lineages: Vec<LineageState>,
    /// Sinks: what to commit once this manifest is durable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub committables: Vec<Committable>,
    /// Rows on their way to it that the barrier has overtaken: read again before anything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_flight: Vec<InFlightRows>,
}

/// Rows that a barrier has overtaken on one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlightRows {
    /// The operator that had sent them.
    pub from: OperatorId,
    /// By which of its outputs.
    pub port: u8,
    /// To which input.
    pub input: usize,
    /// Which subtask had sent them.
    pub sender: usize,
    /// Which subtask had not yet read them.
    pub receiver: usize,
    /// The batches, in order; bucket and key groups say nothing.
    pub batches: Vec<RunRef>,
}

/// What one subtask put into a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubtaskEntry {
    /// Its merged input watermark.
    pub watermark: Timestamp,
    /// What it had counted.
    pub counts: RowCounts,
    /// Rows that it took in through each input but the first; empty, where there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_inputs: Vec<u64>,
    /// Its tables, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, Vec<RunRef>>,
}

/// How far one lineage of splits is read. A split that is neither finished nor being read is unread.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineageState {
    /// Which.
    pub lineage: String,
    /// The description of its first split, by which a changed file is found out.
    pub identity: serde_json::Value,
    /// How many splits it has.
    pub splits: u64,
    /// Splits read to their end; intervals that neither touch nor overlap, ascending.
    pub finished: Vec<FinishedSplits>,
    /// Splits being read, ascending.
    pub reading: Vec<SplitReading>,
    /// Event time at its beginning: where the source was when it appeared, if that was while the job ran.
    #[serde(default = "at_start", skip_serializing_if = "is_at_start")]
    pub base: SplitWatermark,
}

impl LineageState {
    /// Whether it is read to its end.
    pub fn is_read(&self) -> bool {
        let is_whole = |range: &FinishedSplits| range.first == 0 && range.last + 1 == self.splits;
        self.splits == 0 || self.finished.first().is_some_and(is_whole)
    }
}

fn at_start() -> SplitWatermark {
    SplitWatermark::START
}

fn is_at_start(watermark: &SplitWatermark) -> bool {
    *watermark == SplitWatermark::START
}

/// Splits `first..=last` of a lineage, all read to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedSplits {
    /// The first one's place in the lineage.
    pub first: u64,
    /// The last one's.
    pub last: u64,
    /// The watermark at the end of the last.
    pub watermark: SplitWatermark,
}

/// A split that is being read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SplitReading {
    /// Its place in the lineage.
    pub sequence: u64,
    /// Where to go on; null if it was idle before its first row.
    pub position: Position,
    /// Its watermark there.
    pub watermark: SplitWatermark,
    /// Whether the source's watermark did not wait for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_idle: bool,
}

/// Where a run is stored, and which of its rows are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// The file's name in the store's `runs` folder.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How long, in bytes.
    pub length: u64,
    /// CRC-32 (IEEE) of these bytes.
    pub crc32: u32,
    /// Rows in the run, of all key groups.
    pub rows: u64,
    /// The bucket of every row.
    pub bucket: i64,
    /// Only the rows of these key groups are meant.
    pub groups: KeyGroupRange,
    /// How the rows are stored.
    #[serde(default, skip_serializing_if = "RunLayout::is_bucket")]
    pub layout: RunLayout,
}

/// How the rows of a run are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunLayout {
    /// One batch of one bucket: `docs/design/checkpoint-format.md`.
    #[default]
    Bucket,
    /// A sorted run of a keyed table, among others of which a later one is newer: `docs/design/keyed-state.md`.
    Keyed,
    /// Rows that belong to no key, every one of which goes to one subtask.
    Split,
    /// Rows that belong to no key, which every subtask may look at.
    Union,
    /// Rows that belong to no key, which every subtask has.
    Broadcast,
}

impl RunLayout {
    fn is_bucket(&self) -> bool {
        *self == Self::Bucket
    }

    /// How the rows are redistributed, if they belong to no key.
    pub fn redistribution(self) -> Option<Redistribution> {
        match self {
            Self::Bucket | Self::Keyed => None,
            Self::Split => Some(Redistribution::Split),
            Self::Union => Some(Redistribution::Union),
            Self::Broadcast => Some(Redistribution::Broadcast),
        }
    }
}

impl From<Redistribution> for RunLayout {
    fn from(redistribution: Redistribution) -> Self {
        match redistribution {
            Redistribution::Split => Self::Split,
            Redistribution::Union => Self::Union,
            Redistribution::Broadcast => Self::Broadcast,
        }
    }
}

impl RunRef {
    /// Whether it was written for the checkpoint `epoch`: the name of its file begins with it.
    pub fn is_of(&self, epoch: Epoch) -> bool {
        self.file.strip_prefix(&epoch.to_string()).is_some_and(|rest| rest.starts_with('-'))
    }

    /// A reference for tests of this crate.
    #[cfg(test)]
    pub(crate) fn for_test(file: &str, bucket: i64, groups: KeyGroupRange) -> Self {
        Self {
            file: file.to_owned(),
            offset: 0,
            length: 0,
            crc32: 0,
            rows: 0,
            bucket,
            groups,
            layout: RunLayout::Bucket,
        }
    }
}

impl OperatorEntry {
    /// The runs that it names, to be changed.
    pub fn runs_mut(&mut self) -> impl Iterator<Item = &mut RunRef> {
        let tables = self.subtasks.iter_mut().flat_map(|task| task.tables.values_mut().flatten());
        tables.chain(self.in_flight.iter_mut().flat_map(|rows| &mut rows.batches))
    }
}

impl Manifest {
    /// The checkpoint that this one is: output of later epochs is not part of it.
    pub fn origin(&self) -> Epoch {
        self.repeats.unwrap_or(self.epoch)
    }

    /// Every run that the checkpoint names.
    pub fn runs(&self) -> impl Iterator<Item = &RunRef> {
        self.operators.values().flat_map(|operator| {
            let tables = operator.subtasks.iter().flat_map(|task| task.tables.values().flatten());
            tables.chain(operator.in_flight.iter().flat_map(|rows| &rows.batches))
        })
    }

    /// The bytes to store: a line with version, CRC-32 and length, then JSON.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::internal(e.to_string()))?;
        Ok([header_of(FORMAT_VERSION, &json).as_bytes(), b"\n", &json].concat())
    }

    /// The manifest in `bytes`, which were stored at `path`.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, if a byte is not as written; `Usage`, if a newer Ruslo wrote it.
    pub fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let corrupt = |what: &str| Error::corrupt(format!("{}: {what}", path.display()));
        let end = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| corrupt("the header is cut off"))?;
        let (header, json) = bytes.split_at(end);
        let json = json.get(1..).unwrap_or_default();
        let header = std::str::from_utf8(header).map_err(|_| corrupt("the header is damaged"))?;
        let version = header.strip_prefix(MAGIC).and_then(|rest| rest.split(' ').nth(1)?.parse::<u32>().ok());
        let version =
            version.ok_or_else(|| corrupt("this is not a checkpoint's manifest, or its header is damaged"))?;
        if header != header_of(version, json) {
            return Err(corrupt("the checksum does not fit, or the file is cut off"));
        }
        if version > FORMAT_VERSION {
            return Err(Error::usage(format!(
                "{}: written by a newer Ruslo (format {version}; this one reads up to {FORMAT_VERSION}); go on with that \
                 one, or give this one another --checkpoint-dir",
                path.display()
            )));
        }
        serde_json::from_slice(json).map_err(|e| corrupt(&e.to_string()))
    }
}

/// The first line of a manifest that has `json` as its body: version, CRC-32 of magic, version and body, and the body's
/// length in bytes. Every version has this line.
fn header_of(version: u32, json: &[u8]) -> String {
    let mut crc32 = crc32fast::Hasher::new();
    let start = format!("{MAGIC} {version} ");
    crc32.update(start.as_bytes());
    crc32.update(json);
    format!("{start}{:08x} {}", crc32.finalize(), json.len())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files behind the disk's back")]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let run = RunRef::for_test("3-a.arrow", 60_000, 0..64);
        let subtask = SubtaskEntry {
            watermark: Timestamp(7),
            counts: RowCounts { rows_in: 3, rows_out: 2, late_rows: 1, ..RowCounts::default() },
            other_inputs: Vec::new(),
            tables: [("slices".to_owned(), vec![run])].into(),
        };
        let entry = OperatorEntry { name: "TumbleWindow".to_owned(), subtasks: vec![subtask], ..Default::default() };
        Manifest {
            epoch: Epoch(3),
            run: "r1".to_owned(),
            fingerprint: "f".to_owned(),
            plan: None,
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: None,
            books: None,
            finished: false,
            written_at: Timestamp(0),
            operators: [(OperatorId(0xab), entry)].into(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = manifest().encode().unwrap();
        assert_eq!(Manifest::decode(Path::new("m"), &bytes).unwrap(), manifest());
    }

    fn planned() -> Manifest {
        let lines =
            ["operator 00000000000000ab TumbleWindow", "does tumble", "gives BIGINT", "keeps slices key0 BIGINT"];
        let lines = lines.map(str::to_owned).to_vec();
        Manifest { plan: Some(CompiledPlan { format: 1, release: "0.1.0".to_owned(), lines }), ..manifest() }
    }

    #[test]
    fn the_delivery_is_written_by_its_name() {
        let told = Manifest { delivery: Some(Guarantee::AtLeastOnce), ..manifest() };
        let bytes = told.encode().unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("\"delivery\": \"at-least-once\""));
        assert_eq!(Manifest::decode(Path::new("m"), &bytes).unwrap(), told);
    }

    #[test]
    fn a_plan_of_any_format_is_read_as_it_was_written() {
        let plan = CompiledPlan { format: 7, release: "9.0.0".to_owned(), lines: vec!["of a\nlater time".to_owned()] };
        let planned = Manifest { plan: Some(plan), ..manifest() };
        let bytes = planned.encode().unwrap();
        assert_eq!(Manifest::decode(Path::new("m"), &bytes).unwrap(), planned);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_an_error_that_names_the_file() {
        let bytes = manifest().encode().unwrap();
        for byte in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[byte] ^= 1 << bit;
                let error = Manifest::decode(Path::new("12.json"), &damaged).unwrap_err();
                assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Corrupt);
                assert!(error.to_string().starts_with("12.json: "), "{error}");
            }
            assert!(Manifest::decode(Path::new("12.json"), &bytes[..byte]).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let newer = format!("{}\n{{}}", header_of(9, b"{}"));
        let error = Manifest::decode(Path::new("m"), newer.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Usage);
        assert!(error.to_string().contains("newer Ruslo (format 9"), "{error}");
    }

    #[test]
    #[ignore = "writes the fixture of the current format; run it once a version"]
    fn write_the_fixture() {
        std::fs::write("tests/fixtures/manifest_v1.json", manifest().encode().unwrap()).unwrap();
        std::fs::write("tests/fixtures/manifest_v1_planned.json", planned().encode().unwrap()).unwrap();
    }

    #[test]
    fn format_version_one_stays_readable() {
        let fixture = include_bytes!("../tests/fixtures/manifest_v1.json");
        assert_eq!(Manifest::decode(Path::new("fixture"), fixture).unwrap(), manifest());
        let fixture = include_bytes!("../tests/fixtures/manifest_v1_planned.json");
        assert_eq!(Manifest::decode(Path::new("fixture"), fixture).unwrap(), planned());
    }
}
