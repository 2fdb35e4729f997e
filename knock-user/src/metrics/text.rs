//! The text that Prometheus reads, version 0.0.4 of its format: the one that the node exporter's textfile collector
//! reads too.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, prometheus_text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

use super::{
    definitions::{METRICS, MOST_LABELS, Metric, Value},
    reading::Reading,
};

impl Reading {
    /// Returns the text.
    pub fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric {
            name,
            kind,
            labels,
            help,
            samples,
        } in METRICS
        {
            let mut samples = samples(self).peekable();
            if samples.peek().is_none() {
                continue;
            }
            // The encoder appends it by itself.
            let name = name.strip_suffix("_total").unwrap_or(name);
            let mut metric = encoder.encode_descriptor(name, help, None, *kind)?;
            for sample in samples {
                let mut pairs = [("", ""); MOST_LABELS];
                let values = sample.labels();
                for ((pair, label), value) in pairs.iter_mut().zip(*labels).zip(values) {
                    *pair = (label, value);
                }
                let pairs = &pairs[..values.len()];
                let mut encoder = metric.encode_family(&pairs)?;
                match (kind, sample.value) {
                    (MetricType::Counter, Value::Whole(value)) => {
                        ConstCounter::new(value).encode(encoder)?;
                    }
                    (_, Value::Whole(value)) => ConstGauge::new(value).encode(encoder)?,
                    (_, Value::Histogram(sum, counts)) => {
                        let count = counts.iter().map(|(_, count)| count).sum();
                        encoder.encode_histogram::<NoLabelSet>(sum, count, &counts, None)?;
                    }
                    (_, Value::Seconds(value)) => ConstGauge::new(value).encode(encoder)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_up_is_a_zero_without_labels() {
        let reading = Reading {
            snapshot: None,
            is_served: Some(false),
            hook_failures: Vec::new(),
            fleet: None,
        };
        let text = reading.into_text().expect("text");
        let version = env!("CARGO_PKG_VERSION");
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "knockgate_up 0",
                "knockgate_service_running 0",
                &format!("knockgate_build_info{{version=\"{version}\",kernel_program=\"\"}} 1"),
            ]
        );
    }
}
