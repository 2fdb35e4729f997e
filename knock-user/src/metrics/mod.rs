//! What knockgate counts, as metrics of Prometheus.
//!
//! Nothing is kept for them but the service's count of hooks that failed: a [`Reading`] is taken from the kernel's tables when
//! somebody asks. [`METRICS`] has one row for each metric.

mod definitions;
mod reading;
mod text;
pub mod textfile;

pub use definitions::{METRICS, Metric};
pub use reading::Reading;
pub use text::CONTENT_TYPE;
