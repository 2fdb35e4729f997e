//! Errors that come again and again, each reported once.

use anyhow::Error;

/// What was reported last about work that fails. By default nothing.
#[derive(Debug, Default)]
pub struct Complaint(Option<String>);

impl Complaint {
    /// Returns what is to be reported of an error; `None` where that has been reported last.
    pub fn about(&mut self, error: &Error) -> Option<&str> {
        let text = format!("{error:#}");
        if self.0.as_ref() == Some(&text) {
            return None;
        }
        Some(self.0.insert(text))
    }

    /// The work has succeeded: the next error is reported.
    pub fn settle(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_error_is_reported_once_until_another_comes_or_none() {
        let mut complaint = Complaint::default();
        let full = anyhow!("too many open files").context("cannot look");
        let text = "cannot look: too many open files";
        assert_eq!(complaint.about(&full), Some(text));
        assert_eq!(complaint.about(&full), None);
        assert_eq!(complaint.about(&anyhow!("no memory")), Some("no memory"));
        assert_eq!(complaint.about(&full), Some(text));
        complaint.settle();
        assert_eq!(complaint.about(&full), Some(text));
    }
}
