//! What this process has cost so far, as Linux tells it; nothing where there is no `/proc`.

use std::io::Read;
use std::path::Path;

use ruslo::Environment;

/// Clock ticks a second in `/proc`: 100 on every Linux that people run (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time, user and system, of all threads.
pub(crate) fn cpu_seconds() -> Option<f64> {
    cpu_seconds_of(&read("/proc/self/stat")?)
}

/// The most memory that was resident at once, in bytes.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    peak_rss_bytes_of(&read("/proc/self/status")?)
}

fn read(path: &str) -> Option<String> {
    let mut text = String::new();
    Environment::local().disk.open(Path::new(path)).ok()?.read_to_string(&mut text).ok()?;
    Some(text)
}

/// The 14th and 15th field; the second, the command's name, stands in brackets and may hold anything.
fn cpu_seconds_of(stat: &str) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn peak_rss_bytes_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let stat = "17 (a) b) R 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu_seconds_of(stat), Some(3.0));
        assert_eq!(cpu_seconds_of("17 (a"), None);
        assert_eq!(peak_rss_bytes_of("VmPeak:\t 9 kB\nVmHWM:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(peak_rss_bytes_of("VmHWM: many"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_costs_something() {
        assert!(peak_rss_bytes().unwrap() > 1 << 20);
        assert!(cpu_seconds().is_some());
    }
}
