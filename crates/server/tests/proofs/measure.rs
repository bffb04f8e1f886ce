//! Figures of processes and of times.

use std::time::Duration;

/// Resident memory of a process, in bytes; none, if it is gone.
pub(crate) fn rss_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// The value that so many hundredths of `values` do not exceed; 0 of none.
pub(crate) fn quantile(values: &[u64], hundredths: usize) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    let place = (values.len() * hundredths).div_ceil(100).saturating_sub(1);
    values.get(place).copied().unwrap_or_default()
}

pub(crate) fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

pub(crate) fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
