//! Targets: how much a row may add to its floor.

/// The limit of what a row may add to its floor.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// ns, on a processor that needs 64 ns to send a packet and drop it unread.
    pub most: f64,
    /// What a minimal gate in C added to its floor on that processor, ns, as the peers' harness measured it.
    pub minimal: f64,
}

pub const DENIED_FEW: Allowed = Allowed {
    most: 30.0,
    minimal: 25.0,
};
pub const DENIED_MANY: Allowed = Allowed {
    most: 50.0,
    minimal: 51.0,
};
pub const GRANTED_FEW: Allowed = Allowed {
    most: 35.0,
    minimal: 21.0,
};
/// ns, as [`Allowed::most`]. What a minimal gate adds there is within the noise.
pub const UNGUARDED_MOST: f64 = 25.0;

impl Allowed {
    /// Returns the limit as a multiple of what a minimal gate adds, for any processor.
    pub fn times(self) -> f64 {
        let Self { most, minimal } = self;
        (most / minimal * 100.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::traffic::newcomers;

    #[test]
    fn what_is_allowed_is_a_multiple_of_what_a_minimal_gate_adds() {
        let [few, many, whole] = newcomers().map(|newcomers| newcomers.allowed);
        let allowed = [DENIED_FEW, DENIED_MANY, GRANTED_FEW, few, many, whole];
        let times = allowed.map(|allowed| allowed.times().to_string());
        assert_eq!(times, ["1.2", "0.98", "1.67", "1.44", "1.12", "1.2"]);
    }
}
