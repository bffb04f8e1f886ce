//! `restart-strategy.*`: whether a job that failed is started again, how often and after how long. Keys and defaults are
//! Flink's.

use std::time::Duration;

/// Which strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartKind {
    /// A job that failed has failed.
    None,
    /// A number of times, after the same delay each.
    FixedDelay,
    /// For ever, after delays that grow.
    ExponentialDelay,
    /// As long as failures are rare.
    FailureRate,
}

/// `restart-strategy.type` and the options of each type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartSettings {
    /// `restart-strategy.type`; none leaves it to the caller.
    pub kind: Option<RestartKind>,
    /// `restart-strategy.fixed-delay.attempts`.
    pub fixed_attempts: usize,
    /// `restart-strategy.fixed-delay.delay`.
    pub fixed_delay: Duration,
    /// `restart-strategy.failure-rate.max-failures-per-interval`.
    pub rate_failures_max: usize,
    /// `restart-strategy.failure-rate.failure-rate-interval`.
    pub rate_interval: Duration,
    /// `restart-strategy.failure-rate.delay`.
    pub rate_delay: Duration,
    /// `restart-strategy.exponential-delay.initial-backoff`.
    pub backoff_initial: Duration,
    /// `restart-strategy.exponential-delay.max-backoff`.
    pub backoff_max: Duration,
    /// `restart-strategy.exponential-delay.backoff-multiplier`, in thousandths.
    pub backoff_multiplier_milli: u32,
    /// `restart-strategy.exponential-delay.reset-backoff-threshold`: after so long without a failure, all begins anew.
    pub backoff_reset: Duration,
    /// `restart-strategy.exponential-delay.jitter-factor`, in thousandths of the delay.
    pub backoff_jitter_milli: u32,
    /// `restart-strategy.exponential-delay.attempts-before-reset-backoff`; none is no bound.
    pub backoff_attempts: Option<usize>,
}

impl Default for RestartSettings {
    fn default() -> Self {
        Self {
            kind: None,
            fixed_attempts: 1,
            fixed_delay: Duration::from_secs(1),
            rate_failures_max: 1,
            rate_interval: Duration::from_secs(60),
            rate_delay: Duration::from_secs(1),
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            backoff_multiplier_milli: 1_500,
            backoff_reset: Duration::from_secs(3_600),
            backoff_jitter_milli: 100,
            backoff_attempts: None,
        }
    }
}

/// A strategy by Flink's names for it.
pub(crate) fn kind(value: &str) -> Result<RestartKind, String> {
    match value.trim().to_ascii_lowercase().as_str() {
        "none" | "off" | "disable" => Ok(RestartKind::None),
        "fixed-delay" | "fixeddelay" => Ok(RestartKind::FixedDelay),
        "exponential-delay" | "exponentialdelay" => Ok(RestartKind::ExponentialDelay),
        "failure-rate" | "failurerate" => Ok(RestartKind::FailureRate),
        _ => Err(format!(
            "'{value}' is no restart strategy; there are 'none', 'fixed-delay', 'exponential-delay' and 'failure-rate'"
        )),
    }
}

/// How many attempts; `infinite` is no bound.
pub(crate) fn attempts(value: &str) -> Result<Option<usize>, String> {
    if value.trim().eq_ignore_ascii_case("infinite") {
        return Ok(None);
    }
    let attempts = value.trim().parse().ok().filter(|attempts| *attempts > 0);
    attempts.map(Some).ok_or_else(|| format!("'{value}' is neither a whole number from 1 nor 'infinite'"))
}

/// A decimal of at most three digits behind the point, in thousandths, from `least` to `most` of them.
pub(crate) fn thousandths(value: &str, least: u32, most: u32) -> Result<u32, String> {
    let parsed = || {
        let (whole, fraction) = value.trim().split_once('.').unwrap_or((value.trim(), ""));
        let is_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let fits = !whole.is_empty() && fraction.len() <= 3 && is_digits(whole) && is_digits(fraction);
        let fraction = format!("{fraction:0<3}").parse::<u32>().ok()?;
        fits.then(|| whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(fraction)).flatten()
    };
    let milli =
        parsed().ok_or_else(|| format!("'{value}' is not a number such as '1.5', of three decimals at most"))?;
    match (least..=most).contains(&milli) {
        true => Ok(milli),
        false => Err(format!("{value} is not between {} and {}", decimal(least), decimal(most))),
    }
}

fn decimal(milli: u32) -> String {
    format!("{}.{:03}", milli / 1_000, milli % 1_000).trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(thousandths("1.5", 1_000, 10_000), Ok(1_500));
        assert_eq!(thousandths(" 2 ", 1_000, 10_000), Ok(2_000));
        assert_eq!(thousandths("0.001", 0, 1_000), Ok(1));
        assert_eq!(thousandths("0.9", 1_000, 10_000).unwrap_err(), "0.9 is not between 1 and 10");
        for wrong in ["", ".", "x", "-1", "1.2345", "1e3", "99999999999"] {
            assert!(thousandths(wrong, 0, 1_000).is_err(), "{wrong}");
        }
    }

    #[test]
    fn strategies_have_flinks_names() {
        assert_eq!(kind("Disable"), Ok(RestartKind::None));
        assert_eq!(kind("failurerate"), Ok(RestartKind::FailureRate));
        assert!(kind("always").unwrap_err().contains("'exponential-delay'"));
        assert_eq!((attempts("INFINITE"), attempts("3")), (Ok(None), Ok(Some(3))));
        assert!(attempts("0").is_err());
    }
}
