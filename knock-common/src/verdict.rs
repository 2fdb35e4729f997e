//! The decision: what becomes of a packet, and why.

use crate::{
    Address, Kernel,
    address::V4,
    event::{self, Event, NOBODY, cause, kind},
    frame::{self, Frame, Framing, Network, Parsed, Segment, TCP, flag},
    grant, knock, session,
    table::{Flow, Grant, Role, class},
};

/// Why a packet passes or is denied. Index of a per-CPU counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not IP.
    NotIp = 0,
    /// IP that carries neither TCP nor UDP.
    OtherProtocol = 1,
    /// To a port that no gate protects.
    Unguarded = 2,
    /// A knock.
    Knock = 3,
    /// A fragment behind the first.
    Fragment = 4,
    /// Its source has a grant.
    Grant = 5,
    /// Its flow began under a grant.
    Session = 6,
    /// Its source is on the allow list.
    AllowList = 7,
    /// Would be denied if the mode were `enforce`.
    Monitor = 8,
    /// A trial has ended without having been confirmed.
    Lapsed = 9,
    /// To a protected port, from a source without a grant.
    NoGrant = 10,
    /// A new connection beyond those that its grant admits.
    UsedUp = 11,
    /// Its port can't be known, or it is a fragment that only an attack would send.
    Malformed = 12,
}

impl Reason {
    pub const COUNT: usize = 13;

    pub const ALL: [Self; Self::COUNT] = [
        Self::NotIp,
        Self::OtherProtocol,
        Self::Unguarded,
        Self::Knock,
        Self::Fragment,
        Self::Grant,
        Self::Session,
        Self::AllowList,
        Self::Monitor,
        Self::Lapsed,
        Self::NoGrant,
        Self::UsedUp,
        Self::Malformed,
    ];

    pub const fn passes(self) -> bool {
        !matches!(self, Self::NoGrant | Self::UsedUp | Self::Malformed)
    }

    /// As the contract spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotIp => "not_ip",
            Self::OtherProtocol => "other_protocol",
            Self::Unguarded => "unguarded",
            Self::Knock => "knock",
            Self::Fragment => "fragment",
            Self::Grant => "grant",
            Self::Session => "session",
            Self::AllowList => "allow_list",
            Self::Monitor => "monitor",
            Self::Lapsed => "lapsed",
            Self::NoGrant => "no_grant",
            Self::UsedUp => "used_up",
            Self::Malformed => "malformed",
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub reason: Reason,
    /// The gate whose port it went to, or [`event::NO_GATE`].
    pub gate: u16,
}

impl Verdict {
    #[inline(always)]
    pub const fn of(reason: Reason) -> Self {
        Self {
            reason,
            gate: event::NO_GATE,
        }
    }

    /// Index into the packet counters: those of no gate first, then gate by gate.
    #[inline(always)]
    pub const fn counter(self) -> u32 {
        let block = self.gate.wrapping_add(1) as u32;
        block * Reason::COUNT as u32 + self.reason as u32
    }
}

/// Judges one packet of a link on which packets begin with `L`.
#[inline(always)]
pub fn judge<L: Framing, K: Kernel, F: Frame + ?Sized>(kernel: &K, frame: &F) -> Verdict {
    match L::network(frame) {
        Network::Ipv4 { at } => ip(kernel, frame, frame::ipv4(frame, at)),
        Network::Ipv6 { at } => ip(kernel, frame, frame::ipv6(frame, at)),
        Network::Other => Verdict::of(Reason::NotIp),
        Network::Malformed => malformed::<K, V4>(kernel, None),
    }
}

#[inline(always)]
fn ip<K: Kernel, F: Frame + ?Sized, A: Address>(
    kernel: &K,
    frame: &F,
    parsed: Parsed<A>,
) -> Verdict {
    let segment = match parsed {
        Parsed::Segment(segment) => segment,
        Parsed::Pass(reason) => return Verdict::of(reason),
        Parsed::Malformed(ends) => return malformed(kernel, ends),
    };
    self::segment(kernel, &segment, || frame::tcp(frame, &segment))
}

/// A packet whose ports are known; `tcp` gives its flags and sequence number, where they matter.
#[inline(always)]
pub(crate) fn segment<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    tcp: impl FnOnce() -> (u8, u32),
) -> Verdict {
    let index = Role::index(segment.protocol != TCP, segment.destination_port);
    let role = kernel.role(index);
    if role == Role::Open || !kernel.guards(segment.destination) {
        return Verdict::of(Reason::Unguarded);
    }
    let (flags, sequence) = if segment.protocol == TCP {
        tcp()
    } else {
        (0, 0)
    };
    if let Role::Protected { gate } = role {
        let reason = guarded(kernel, segment, gate, flags, sequence);
        return Verdict { reason, gate };
    }
    if segment.protocol == TCP
        && flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) != flag::SYN
    {
        return Verdict::of(Reason::Unguarded);
    }
    if let Role::Knock { symbol, starts } = role {
        knock::knock(kernel, segment, symbol, starts);
        Verdict::of(Reason::Knock)
    } else {
        knock::foreign(kernel, segment);
        Verdict::of(Reason::Unguarded)
    }
}

/// What there is to know of a packet to a protected port, beside its addresses.
struct Opening {
    /// TCP's.
    flags: u8,
    sequence: u32,
    /// 1: it has been admitted, and begins a flow that is to be remembered.
    begins: u8,
    /// Whose grant has admitted it then.
    user: u32,
}

/// A packet to a protected port, whose flow is remembered where it begins one.
///
/// A function of its own in the kernel program too, like the ones for probes: the verifier then
/// follows what comes after parsing once, and not once for every way through the parser.
#[inline(never)]
fn guarded<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    gate: u16,
    flags: u8,
    sequence: u32,
) -> Reason {
    let mut packet = Opening {
        flags,
        sequence,
        begins: 0,
        user: NOBODY,
    };
    let reason = protected(kernel, segment, gate, &mut packet);
    if packet.begins != 0 {
        begun(kernel, segment, gate, &packet);
    }
    reason
}

/// A packet to a protected port: it needs a session, a grant or a place on the allow list.
#[inline(never)]
fn protected<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    gate: u16,
    packet: &mut Opening,
) -> Reason {
    let flow = Flow::of(segment);
    let flags = packet.flags;
    let tcp = segment.protocol == TCP;
    // With SYN and without ACK the host takes it for a new connection, whatever else is set.
    let opens = tcp && flags & (flag::SYN | flag::ACK) == flag::SYN;

    let known = if opens {
        Known::Nothing
    } else {
        known(kernel, &flow, gate, flags)
    };
    if matches!(known, Known::Granted) {
        return Reason::Grant;
    }
    let reason = match (grant::live(kernel, &segment.source, gate), known) {
        (Some(grant), Known::Kept) => {
            session::renew(kernel, &flow, grant.until);
            Reason::Grant
        }
        (None, Known::Kept) => Reason::Session,
        (Some(_), _) if tcp && !opens => Reason::Grant,
        (Some(grant), _) => admit(kernel, segment, &flow, gate, grant, packet),
        (None, _) => Reason::NoGrant,
    };
    if reason.passes() {
        return reason;
    }
    if kernel.allows(segment.source) {
        return Reason::AllowList;
    }
    if kernel.wants_report(class::DENIALS) {
        let cause = if matches!(reason, Reason::UsedUp) {
            cause::USED_UP
        } else {
            cause::NO_GRANT
        };
        tell(kernel, segment, gate, NOBODY, (kind::DENIED, cause));
    }
    enforced(kernel, reason)
}

/// What is known of a packet's flow.
#[derive(Clone, Copy)]
enum Known {
    /// It is none that goes on.
    Nothing,
    /// It began under a grant that lives on.
    Granted,
    /// It began under a grant that may have ended.
    Kept,
}

/// Looks up the flow of a packet that doesn't begin one, and notes that it has come.
#[inline(always)]
fn known<K: Kernel, A: Address>(kernel: &K, flow: &Flow<A>, gate: u16, flags: u8) -> Known {
    let Some(rules) = kernel.gate(gate) else {
        return Known::Nothing;
    };
    let tcp = flow.protocol == u32::from(TCP);
    if rules.cut != 0 && (rules.connections == 0 || !tcp) {
        return Known::Nothing;
    }
    let Some((session, now)) = session::find(kernel, flow, gate, rules) else {
        return Known::Nothing;
    };
    if rules.cut != 0 {
        // It is remembered only so that its connections are counted.
        session::note_more(session);
        return Known::Nothing;
    }
    if !session::goes_on(kernel, flow, session, flags, now) {
        return Known::Nothing;
    }
    // Not written where it would not change: the coarse clock stands still for a tick.
    if session.last != now {
        session.last = now;
    }
    if session.granted_until > now {
        Known::Granted
    } else {
        Known::Kept
    }
}

/// A packet that begins a connection under a live grant.
#[inline(always)]
fn admit<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    flow: &Flow<A>,
    gate: u16,
    grant: &mut Grant,
    packet: &mut Opening,
) -> Reason {
    let Some(rules) = kernel.gate(gate) else {
        // A role without its gate can't be; if it is, the port stays closed.
        return Reason::NoGrant;
    };
    let limit = rules.connections;
    if rules.cut != 0 && limit == 0 {
        // Nothing has to be remembered: a flow passes while there is a grant, and none is one too many.
        if segment.protocol == TCP {
            kernel.fetch_add(&mut grant.connections);
        }
        return Reason::Grant;
    }
    if let Some((session, now)) = session::find(kernel, flow, gate, rules)
        && session::retransmits(session, packet.flags, packet.sequence)
    {
        // A SYN once more; under `cut`, any datagram of a known flow too.
        session.last = now;
        return Reason::Grant;
    }
    if limit != 0 {
        // Looked at before it is counted, so that no flood can make the count go round.
        if grant.connections >= limit {
            return Reason::UsedUp;
        }
        let before = kernel.fetch_add(&mut grant.connections);
        if before >= limit {
            return Reason::UsedUp;
        }
        if before + 1 == limit && kernel.wants_report(class::CLOSINGS) {
            tell(
                kernel,
                segment,
                gate,
                grant.user,
                (kind::CLOSED, cause::USED),
            );
        }
    } else {
        kernel.fetch_add(&mut grant.connections);
    }
    packet.begins = 1;
    packet.user = grant.user;
    Reason::Grant
}

/// Remembers the flow that an admitted packet begins. Not done where that is decided, since all that is
/// called one within the other shares 512 bytes of stack.
#[inline(always)]
fn begun<K: Kernel, A: Address>(kernel: &K, segment: &Segment<A>, gate: u16, packet: &Opening) {
    if !session::remember(kernel, segment, gate, packet.sequence)
        && kernel.wants_report(class::DENIALS)
    {
        let what = (kind::UNKEPT, cause::TABLE_FULL);
        tell(kernel, segment, gate, packet.user, what);
    }
}

/// A packet whose ports can't be known.
#[inline(always)]
pub fn malformed<K: Kernel, A: Address>(kernel: &K, ends: Option<(A, A)>) -> Verdict {
    if let Some((source, destination)) = ends {
        if !kernel.guards(destination) {
            return Verdict::of(Reason::Unguarded);
        }
        if kernel.allows(source) {
            return Verdict::of(Reason::AllowList);
        }
        if kernel.wants_report(class::DENIALS) {
            let unread = Segment {
                source,
                destination,
                source_port: 0,
                destination_port: 0,
                protocol: 0,
                transport: 0,
            };
            let what = (kind::DENIED, cause::MALFORMED);
            tell(kernel, &unread, event::NO_GATE, NOBODY, what);
        }
    }
    Verdict::of(enforced(kernel, Reason::Malformed))
}

/// A denial as the mode has it.
#[inline(always)]
fn enforced<K: Kernel>(kernel: &K, denial: Reason) -> Reason {
    if kernel.monitor() {
        Reason::Monitor
    } else {
        denial
    }
}

/// Reports what happened to a packet at a gate. Out of line, to keep the event off the stack of
/// those that call deeper.
#[inline(never)]
fn tell<K: Kernel, A: Address>(
    kernel: &K,
    segment: &Segment<A>,
    gate: u16,
    user: u32,
    (kind, cause): (u8, u8),
) {
    kernel.report(&Event {
        time: kernel.now(),
        until: 0,
        source: segment.source.padded(),
        user,
        gate,
        port: segment.destination_port,
        kind,
        cause,
        family: A::FAMILY,
        protocol: segment.protocol,
        step: 0,
        of: 0,
        zero: [0; 2],
    });
}
