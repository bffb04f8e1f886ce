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

/// The text for a job; only its end, if there is none.
pub(super) fn text(figures: Option<Figures>) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("ruslo");
    if let Some(figures) = figures {
        registry.register_collector(Box::new(figures));
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Figures {
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
