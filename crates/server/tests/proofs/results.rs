//! What was done, one line of JSON a job, so that a run can be gone on with.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;

use serde_json::Value;

pub(crate) struct Results {
    file: Option<PathBuf>,
    lines: Vec<Value>,
}

impl Results {
    /// Those in `folder`; without one, none.
    pub(crate) fn open(folder: Option<PathBuf>, name: &str) -> Self {
        let file = folder.map(|folder| {
            fs::create_dir_all(&folder).unwrap();
            folder.join(format!("{name}.jsonl"))
        });
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        // A process that was killed as it wrote has left half a line: that job is done again.
        let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Self { file, lines }
    }

    pub(crate) fn done(&self) -> BTreeSet<u64> {
        self.lines.iter().filter_map(|line| line["job"].as_u64()).collect()
    }

    pub(crate) fn add(&mut self, line: Value) {
        if let Some(file) = &self.file {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
            file.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        self.lines.push(line);
    }

    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.lines.iter().filter_map(|line| line[name].as_u64()).sum()
    }

    pub(crate) fn most(&self, name: &str) -> u64 {
        self.lines.iter().filter_map(|line| line[name].as_u64()).max().unwrap_or_default()
    }

    /// All numbers of all lists called `name`.
    pub(crate) fn all(&self, name: &str) -> Vec<u64> {
        let lists = self.lines.iter().filter_map(|line| line[name].as_array());
        lists.flatten().filter_map(Value::as_u64).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }
}
