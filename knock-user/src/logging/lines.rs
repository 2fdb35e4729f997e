//! The lines of a log as text.

use std::fmt::{self, Debug};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Writes `LEVEL message`, behind the time where that is wanted.
pub struct Text {
    pub has_time: bool,
}

/// What is logged at once: a message, and fields in their order.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) message: String,
    pub(super) fields: Vec<(&'static str, Value)>,
}

impl Entry {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let mut entry = Self::default();
        event.record(&mut entry);
        entry
    }
}

impl Visit for Entry {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push((field.name(), value.into()));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.fields.push((field.name(), value.into()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl<S, N> FormatEvent<S, N> for Text
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
        let Entry { message, fields: _ } = Entry::of(event);
        if self.has_time {
            let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
            write!(writer, "{now} ")?;
        }
        let level = *event.metadata().level();
        let style = if writer.has_ansi_escapes() {
            style(level)
        } else {
            Style::new()
        };
        writeln!(writer, "{style}{level:>5}{style:#} {message}")
    }
}

fn style(level: Level) -> Style {
    let colour = match level {
        Level::ERROR => AnsiColor::Red,
        Level::WARN => AnsiColor::Yellow,
        Level::INFO => AnsiColor::Green,
        _ => AnsiColor::Blue,
    };
    colour.on_default()
}

#[cfg(all(test, feature = "host"))]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{fmt::layer, layer::SubscriberExt as _};

    use super::*;
    use crate::{logging::json::Json, service::Record};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the lines that something logs.
    fn logged<F>(format: F, ansi: bool, log: impl FnOnce()) -> Vec<String>
    where
        F: FormatEvent<
                tracing_subscriber::Registry,
                tracing_subscriber::fmt::format::DefaultFields,
            > + Send
            + Sync
            + 'static,
    {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = layer()
            .with_writer(move || writer.clone())
            .with_ansi(ansi)
            .event_format(format);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let text = buffer.0.lock().expect("no panic").clone();
        let text = String::from_utf8(text).expect("UTF-8");
        text.lines().map(ToOwned::to_owned).collect()
    }

    fn failed() -> Record {
        Record {
            gate: Some("ssh".into()),
            source: Some("2001:db8::7".into()),
            port: Some("22/tcp".parse().expect("a port")),
            step: Some(1),
            of: Some(3),
            reason: Some("wrong".into()),
            ..Record::now("knock.failed")
        }
    }

    #[test]
    fn text_shows_level_and_message() {
        let say = || {
            tracing::warn!("two\nlines");
            failed().log();
        };
        assert_eq!(
            logged(Text { has_time: false }, false, say),
            [
                " WARN two",
                "lines",
                " INFO knock.failed gate=ssh source=2001:db8::7 port=22/tcp step=1 of=3 reason=wrong",
            ]
        );
        let coloured = logged(Text { has_time: false }, true, || tracing::info!("x"));
        assert_eq!(coloured, ["\u{1b}[32m INFO\u{1b}[0m x"]);
        let line = logged(Text { has_time: true }, false, || tracing::info!("x")).concat();
        let (time, rest) = line.split_once(' ').expect("a time");
        assert_eq!(rest, " INFO x");
        time.parse::<Timestamp>().expect("a time");
    }

    #[test]
    fn json_has_events_as_they_are_printed_and_other_messages_with_their_level() {
        let record = failed();
        let lines = logged(Json, false, || {
            record.log();
            tracing::warn!("{}", "a \"quoted\"\nword");
        });
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            serde_json::to_string(&record).expect("serialisable")
        );
        let message: Value = serde_json::from_str(&lines[1]).expect("JSON");
        assert_eq!(message["level"], "warn");
        assert_eq!(message["message"], "a \"quoted\"\nword");
        let time = message["time"].as_str().expect("a time");
        time.parse::<Timestamp>().expect("RFC 3339");
    }

    /// Every key of an event is a field, under the same name and in the same order.
    #[test]
    fn no_key_is_missing_in_the_log() {
        let record = Record {
            interface: Some("eth0".into()),
            user: Some("alice".into()),
            key: Some("alice/laptop".into()),
            until: Some(Timestamp::now()),
            lost: Some(1),
            failures: Some(2),
            hook: Some("/bin/true".into()),
            origin: Some("edge-1".into()),
            ..failed()
        };
        assert_eq!(record.fields().len(), Record::KEYS.len());
        let lines = logged(Json, false, || record.log());
        assert_eq!(
            lines,
            [serde_json::to_string(&record).expect("serialisable")]
        );
    }
}
