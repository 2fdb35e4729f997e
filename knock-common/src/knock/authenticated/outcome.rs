//! What becomes of a datagram.

named! {
    /// What became of a datagram to a port for authenticated knocks. Index of a counter.
    pub enum Outcome: "The datagram" {
        Other = 0, "other", "is no knock that was made for this host, or its time is wrong by more than 30 days";
        Stale = 1, "stale", "is older than `max_age`, or further ahead of this host's clock than `max_ahead`";
        Unknown = 2, "unknown", "names a key that there is not";
        Expired = 3, "expired", "was made with a key that has expired";
        Revoked = 4, "revoked", "was made with a key that has been revoked";
        Replay = 5, "replay", "is as old as a knock of this key that was accepted, or older, and comes from another address, which it does not list";
        Duplicate = 6, "duplicate", "is as old as a knock of this key that was accepted, or may have been, or older, and lists the address that it comes from or is not known to come from another one";
        Forged = 7, "forged", "has a wrong tag";
        Gate = 8, "gate", "names a gate that its key does not open";
        Address = 9, "address", "does not come from an address that it lists, or lists none though its key is bound";
        Source = 10, "source", "asks for an address that is not among the gate's `sources`";
        TableFull = 11, "table_full", "is valid, but there is no room for another grant";
        Opened = 12, "opened", "is valid; a grant was given or renewed";
        Closed = 13, "closed", "is valid; the grant of this key was ended, if there was one";
        Held = 14, "held", "is valid; it opens once the fleet has agreed that no other host has accepted it (`replay = \"strict\"`)";
    }
}
