//! `/metrics`: the figures in Prometheus' text, under the names of [`crate::figures::metrics`] behind `ruslo_`.

use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::figures::Figures;
use crate::figures::metrics::{Labels, Metric, Samples};

/// The text for some jobs; only its end, if there are none.
pub(super) fn text(figures: Vec<Figures>) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("ruslo");
    registry.register_collector(Box::new(Jobs(figures)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Jobs(Vec<Figures>);

impl Jobs {
    /// Every metric once, with the samples of all jobs: each job has the same metrics, in the same order.
    fn metrics(&self) -> Vec<Metric<'_>> {
        let mut jobs = self.0.iter();
        let mut all = jobs.next().map(Figures::metrics).unwrap_or_default();
        for job in jobs {
            for (metric, more) in all.iter_mut().zip(job.metrics()) {
                match (&mut metric.samples, more.samples) {
                    (Samples::Counter(samples), Samples::Counter(more)) => samples.extend(more),
                    (Samples::Gauge(samples), Samples::Gauge(more)) => samples.extend(more),
                    _ => {}
                }
            }
        }
        all
    }
}

impl Collector for Jobs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        for Metric { scope, name, help, samples } in self.metrics() {
            let name = format!("{scope}_{name}");
            match samples {
                Samples::Counter(samples) => family(&mut encoder, &name, help, samples, ConstCounter::new)?,
                Samples::Gauge(samples) => family(&mut encoder, &name, help, samples, ConstGauge::new)?,
            }
        }
        Ok(())
    }
}

fn family<T: Default, M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<(Labels<'_>, T)>,
    metric: fn(T) -> M,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, metric(T::default()).metric_type())?;
    for (labels, value) in samples {
        metric(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
