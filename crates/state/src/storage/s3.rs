//! Buckets of S3, and of everything that speaks its protocol.
//!
//! Credentials, region and endpoint come from the variables that the AWS tools read; nothing of them is ever printed.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::{BackoffConfig, RetryConfig};
use ruslo_core::error::{Error, Result};

use super::object::ObjectStorage;

/// A request that fails is repeated so often at most, which with its pauses takes half a minute, ...
const TRIES: usize = 10;

/// ... and not after this time.
const RETRY_TIME: Duration = Duration::from_secs(60);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// How many times longer than the last one a pause is at most.
const PAUSE_GROWTH: f64 = 3.0;

/// The objects under `place`, which reads `bucket/prefix`.
pub(super) fn open(place: &str) -> Result<ObjectStorage> {
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    let prefix = prefix.trim_matches('/');
    let address = if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
    if bucket.is_empty() {
        return Err(Error::usage(format!("s3://{place}: write s3://bucket/prefix; the bucket is missing")));
    }
    check_endpoint(|name| std::env::var(name).ok())?;
    let backoff = BackoffConfig { max_backoff: PAUSE_MAX, base: PAUSE_GROWTH, ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: TRIES, retry_timeout: RETRY_TIME };
    let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry).build();
    let s3 = s3.map_err(|error| Error::usage(format!("{address}: {error}; check the AWS_* variables")))?;
    ObjectStorage::new(Arc::new(s3), address, prefix)
}

/// That credentials do not go unencrypted through a network by accident.
fn check_endpoint(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.starts_with("http://")) else { return Ok(()) };
    match variable("AWS_ALLOW_HTTP") {
        Some(allowed) if ["true", "1", "yes", "on"].contains(&allowed.to_lowercase().as_str()) => Ok(()),
        _ => Err(Error::usage(format!(
            "{endpoint} is not encrypted; set AWS_ALLOW_HTTP=true if the way to it is safe, or use an https:// endpoint"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Storage;

    #[test]
    fn an_address_is_a_bucket_and_a_prefix() {
        let described = |place: &str| open(place).map(|storage| storage.describe("m/1"));
        assert_eq!(described("bucket/jobs/a/").unwrap(), "s3://bucket/jobs/a/m/1");
        assert_eq!(described("bucket").unwrap(), "s3://bucket/m/1");
        assert!(described("/jobs").unwrap_err().to_string().contains("the bucket is missing"));
    }

    #[test]
    fn nothing_is_sent_unencrypted_unless_it_was_said() {
        let check = |endpoint: &'static str, allowed: Option<&'static str>| {
            check_endpoint(move |name| match name {
                "AWS_ENDPOINT_URL" => Some(endpoint.to_owned()),
                "AWS_ALLOW_HTTP" => allowed.map(str::to_owned),
                _ => None,
            })
        };
        assert!(check("https://s3.example", None).is_ok() && check("http://localhost:1", Some("TRUE")).is_ok());
        let refused = check("http://localhost:1", None).unwrap_err().to_string();
        assert!(refused.contains("http://localhost:1 is not encrypted; set AWS_ALLOW_HTTP=true"), "{refused}");
    }
}
