//! The lines of a log as JSON.

use std::fmt;

use jiff::Timestamp;
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::lines::Entry;

/// Writes an event as `events --json` does, and everything else as time, level and message.
pub struct Json;

impl Serialize for Entry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.fields.len()))?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut entry = Entry::of(event);
        if !entry.fields.iter().any(|(name, _)| *name == "event") {
            let level = event.metadata().level().as_str().to_lowercase();
            let of_message = [
                ("time", Timestamp::now().to_string().into()),
                ("level", level.into()),
                ("message", entry.message.as_str().into()),
            ];
            entry.fields.splice(0..0, of_message);
        }
        let line = serde_json::to_string(&entry).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}
