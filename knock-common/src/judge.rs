//! The decision: what becomes of a packet, and why.

use crate::{
    Address, Env,
    address::V4,
    event::{Cause, Event, Kind, NOBODY},
    frame::{
        Frame, Parsed, PortPair, Segment, TCP, flag,
        ip::{self, ipv4, ipv6},
        link::{Framing, NetworkLayer},
    },
    grant::{self, Grant},
    guarded,
    knock::{
        authenticated::{self, key::NO_KEY},
        sequence,
    },
    report::{class, class_of, send},
    rules::{NO_GATE, PortRole, Role},
    session::{self, Flow, recent::Place},
    verdict::{Action, Reason, Verdict},
};

/// Judges one packet of a link on which packets begin with `L`.
#[inline(always)]
pub fn judge<L: Framing, E: Env, F: Frame + ?Sized>(env: &E, frame: &F) -> Verdict {
    if env.lapsed() {
        return Verdict::of(Reason::Lapsed);
    }
    let parsed = match L::plain(frame) {
        Some(segment) => Parsed::Segment(segment),
        None => match L::network(frame) {
            NetworkLayer::Ipv4 { at } => ipv4(frame, at),
            NetworkLayer::Ipv6 { at } => return ip(env, frame, ipv6(frame, at)),
            NetworkLayer::Other => return Verdict::of(Reason::NotIp),
            NetworkLayer::Malformed => return malformed::<E, V4>(env, None),
        },
    };
    ip(env, frame, parsed)
}

/// Returns what the program does with a packet. Not part of [`judge`], because each packet takes fewer instructions if it
/// is counted in between.
#[inline(always)]
pub fn action<E: Env>(env: &E, verdict: Verdict) -> Action {
    if verdict.reason.passes() {
        Action::Pass
    } else if env.rejects(verdict.gate) {
        Action::Reply
    } else {
        Action::Drop
    }
}

#[inline(always)]
fn ip<E: Env, F: Frame + ?Sized, A: Address>(env: &E, frame: &F, parsed: Parsed<A>) -> Verdict {
    let segment = match parsed {
        Parsed::Segment(segment) => segment,
        Parsed::Pass(reason) => return Verdict::of(reason),
        Parsed::Malformed(ends) => return malformed(env, ends),
    };
    self::segment(env, frame, &segment, || ip::tcp(frame, &segment))
}

/// Judges a packet whose ports are known, and takes the authenticated knock that it may be. `tcp` returns its TCP flags and
/// sequence number; it is called only if these matter.
#[inline(always)]
pub(crate) fn segment<E: Env, F: Frame + ?Sized, A: Address>(
    env: &E,
    frame: &F,
    segment: &Segment<A>,
    tcp: impl FnOnce() -> (u8, u32),
) -> Verdict {
    let port = port_of(env, segment);
    if port.is_authenticated() && env.takes_authenticated() && segment.protocol != TCP {
        return at_knock_port(env, frame, segment, port);
    }
    if port.is_protected() {
        if !guarded::at(env, segment, port) {
            return Verdict::of(Reason::Unguarded);
        }
        let (flags, sequence) = tcp_of(segment, tcp);
        let reason = at_gate(env, segment, port, flags, sequence);
        let gate = port.gate();
        return Verdict { reason, gate };
    }
    let role = port.role();
    if role == Role::Open || !guarded::may_be(env, segment.destination) {
        return Verdict::of(Reason::Unguarded);
    }
    let (flags, _) = tcp_of(segment, tcp);
    if segment.protocol == TCP
        && flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) != flag::SYN
    {
        return Verdict::of(Reason::Unguarded);
    }
    // The others matter only where they break a run, so that is looked at first.
    if role != Role::Foreign && !guarded::is(env, segment) {
        return Verdict::of(Reason::Unguarded);
    }
    if let Role::Knock { symbol, starts } = role {
        sequence::knock(env, segment, symbol, starts);
        Verdict::of(Reason::Knock)
    } else if role == Role::Fwknop {
        env.hand_up(segment);
        Verdict::of(Reason::Unguarded)
    } else {
        sequence::foreign(env, segment);
        Verdict::of(Reason::Unguarded)
    }
}

/// Returns the entry of a packet's destination port.
#[inline(always)]
fn port_of<E: Env, A: Address>(env: &E, segment: &Segment<A>) -> PortRole {
    // The numbers of TCP and UDP, 6 and 17, differ in the lowest bit: no branch.
    let index = Role::index(segment.protocol & 1 != 0, segment.ports.destination());
    env.port(index)
}

/// Returns the TCP flags and sequence number of a packet: 0 for a datagram.
#[inline(always)]
fn tcp_of<A: Address>(segment: &Segment<A>, tcp: impl FnOnce() -> (u8, u32)) -> (u8, u32) {
    if segment.protocol == TCP {
        tcp()
    } else {
        (0, 0)
    }
}

/// Judges a datagram to a port for authenticated knocks, and takes the knock that it may be.
#[inline(always)]
fn at_knock_port<E: Env, F: Frame + ?Sized, A: Address>(
    env: &E,
    frame: &F,
    segment: &Segment<A>,
    port: PortRole,
) -> Verdict {
    // Knocks are taken where packets are guarded, whatever destinations the gate of the port has.
    let takes = guarded::by_destination(env, segment);
    let protects = if guarded::is_placed(env, port) {
        guarded::is_place(env, segment.destination, port.gate())
    } else {
        takes
    };
    if takes {
        authenticated::look_at(env, frame, segment);
    }
    if port.is_protected() && protects {
        let reason = at_gate(env, segment, port, 0, 0);
        let gate = port.gate();
        // Behind the verdict: the grant that a knock earns is not for the knock itself.
        if takes {
            env.answer_knock();
        }
        return Verdict { reason, gate };
    }
    Verdict::of(if takes && env.answer_knock() {
        Reason::Knock
    } else {
        Reason::Unguarded
    })
}

/// The TCP fields of a packet to a protected port, and how it was admitted.
struct Admission {
    flags: u8,
    /// What is known of its flow.
    known: Known,
    sequence: u32,
    /// 1: it has been admitted and begins a flow that is to be remembered.
    begins: u8,
    /// [`Earned::user`](grant::Earned::user) of the grant that has admitted it, if so.
    user: u32,
}

/// Judges a packet to a protected port, and remembers the flow that it begins.
#[inline(always)]
fn at_gate<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    port: PortRole,
    flags: u8,
    sequence: u32,
) -> Reason {
    let gate = port.gate();
    let tcp = segment.protocol == TCP;
    // The host takes SYN without ACK for a new connection, whatever other flags are set.
    let opens = tcp && flags & (flag::SYN | flag::ACK) == flag::SYN;
    let known = if opens {
        Known::Opens
    } else {
        known(env, segment, port, flags)
    };
    if known == Known::Granted {
        return Reason::Grant;
    }
    let grant = grant::find::live(env, &segment.source, gate, segment.ports.source());
    if known == Known::Nothing && grant.is_some() {
        return Reason::Grant;
    }
    let mut packet = Admission {
        flags,
        known,
        sequence,
        begins: 0,
        user: NOBODY,
    };
    let reason = protected(env, segment, gate, &mut packet, grant);
    if packet.begins != 0 {
        begun(env, segment, gate, &packet);
    }
    reason
}

/// Judges a packet to a protected port that its caller has not admitted already: it needs a session, a grant or an entry of the
/// allow list.
///
/// Not inlined, like the functions for probes: the verifier then follows this once, and not once for every path through the
/// parser.
#[inline(never)]
fn protected<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    gate: u16,
    packet: &mut Admission,
    grant: Option<&mut Grant>,
) -> Reason {
    let reason = match (grant, packet.known) {
        (Some(grant), _) => admit(env, segment, gate, grant, packet),
        (None, Known::Kept) => Reason::Session,
        (None, _) => Reason::NoGrant,
    };
    if reason.passes() {
        return reason;
    }
    if env.allows(segment.source) {
        return Reason::AllowList;
    }
    if send::wants(env, class::DENIALS) {
        let cause = if matches!(reason, Reason::UsedUp) {
            Cause::UsedUp
        } else {
            Cause::NoGrant
        };
        tell(env, segment, gate, NOBODY, (Kind::Denied, cause));
    }
    enforced(env, reason)
}

/// What is known of a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Known {
    /// It begins with this packet: a SYN, or a datagram of no session.
    Opens,
    /// There is no session, and the packet begins none.
    Nothing,
    /// It began under a grant that is still live.
    Granted,
    /// It began under a grant that may have ended.
    Kept,
}

/// Looks up the flow of a packet that does not begin one, and updates its session.
#[inline(always)]
fn known<E: Env, A: Address>(env: &E, segment: &Segment<A>, port: PortRole, flags: u8) -> Known {
    let none = || match segment.protocol {
        TCP => Known::Nothing,
        _ => Known::Opens,
    };
    let gate = port.gate();
    if port.is_cut() {
        note_cut(env, segment, gate);
        return none();
    }
    let recent = Place::of(env, segment, gate);
    if flags & (flag::FIN | flag::RST) == 0 && recent.has_passed() {
        return Known::Granted;
    }
    let flow = &Flow::of(segment);
    let Some((session, now)) = session::lookup::find(env, flow, gate) else {
        return none();
    };
    if !session::lookup::goes_on(env, segment, session, flags, now) {
        return none();
    }
    session::seen(session, now);
    if session.is_granted(now) {
        if session.is_closing() {
            recent.forget();
        } else {
            recent.passes();
        }
        Known::Granted
    } else {
        Known::Kept
    }
}

/// Updates the session of a packet to a port whose flows are cut. It matters only where connections are counted, to tell a
/// retransmitted SYN from a new one.
///
/// Not inlined, to keep the caller's frame small.
#[inline(never)]
fn note_cut<E: Env, A: Address>(env: &E, segment: &Segment<A>, gate: u16) {
    let counts = env.gate(gate).is_some_and(|rules| rules.connections != 0);
    if counts
        && segment.protocol == TCP
        && let Some((session, _)) = session::lookup::find_again(env, &Flow::of(segment), gate)
    {
        session::lookup::note_more(session);
    }
}

/// Judges a packet under a live grant that begins a connection, or whose session is to note when that grant ends.
#[inline(always)]
fn admit<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    gate: u16,
    grant: &mut Grant,
    packet: &mut Admission,
) -> Reason {
    let Some(rules) = env.gate(gate) else {
        // Every role has its gate; if one did not, its port would stay closed.
        return Reason::NoGrant;
    };
    let limit = rules.connections;
    if limit == 0 && port_of(env, segment).is_cut() {
        // Nothing has to be remembered: flows pass while there is a grant, any number of them.
        if segment.protocol == TCP {
            env.fetch_add(&mut grant.connections);
        }
        return Reason::Grant;
    }
    let flow = Flow::of(segment);
    if let Some((session, now)) = session::lookup::find_again(env, &flow, gate) {
        // The session is looked up a second time: to pass on the reference from `known` would cost each denied packet
        // instructions. For a session that was found already, this happens once for each grant, and with each packet in the
        // last 134 ms of a grant.
        if packet.known == Known::Kept {
            session.set_granted(grant.until);
            return Reason::Grant;
        }
        if session::lookup::retransmits(session, packet.flags, packet.sequence) {
            // A retransmitted SYN; under `cut`, any datagram of a known flow too.
            session::seen(session, now);
            return Reason::Grant;
        }
    }
    if packet.known == Known::Kept {
        // The session has ended since `known` found it.
        return Reason::Grant;
    }
    if limit != 0 {
        // Compared before it is incremented, so that no flood can make the count wrap.
        if grant.connections >= limit {
            return Reason::UsedUp;
        }
        let before = env.fetch_add(&mut grant.connections);
        if before >= limit {
            return Reason::UsedUp;
        }
        if before + 1 == limit && send::wants(env, class::CLOSINGS) {
            tell(
                env,
                segment,
                gate,
                grant.earned.user(),
                (Kind::Closed, Cause::Used),
            );
        }
    } else {
        env.fetch_add(&mut grant.connections);
    }
    packet.begins = 1;
    packet.user = grant.earned.user();
    Reason::Grant
}

/// Remembers the flow that an admitted packet begins. Not done in `admit`, since nested calls share 512 bytes of stack.
#[inline(always)]
fn begun<E: Env, A: Address>(env: &E, segment: &Segment<A>, gate: u16, packet: &Admission) {
    Place::of(env, segment, gate).forget();
    if !session::remember::remember(env, segment, gate, packet.sequence)
        && send::wants(env, class::DENIALS)
    {
        let what = (Kind::Unkept, Cause::TableFull);
        tell(env, segment, gate, packet.user, what);
    }
}

/// Judges a packet that cannot be read up to its ports. `ends`: source and destination, if these could be read.
#[inline(always)]
pub fn malformed<E: Env, A: Address>(env: &E, ends: Option<(A, A)>) -> Verdict {
    Verdict::of(match ends {
        Some((source, destination)) => without_ports(env, source, destination),
        None => enforced(env, Reason::Malformed),
    })
}

/// Judges such a packet by its source and destination. Not inlined, to keep the caller's frame small.
#[inline(never)]
fn without_ports<E: Env, A: Address>(env: &E, source: A, destination: A) -> Reason {
    let packet = Segment {
        source,
        destination,
        ports: PortPair::NONE,
        protocol: 0,
        transport: 0,
    };
    if !guarded::at_any_port(env, &packet) {
        return Reason::Unguarded;
    }
    if env.allows(source) {
        return Reason::AllowList;
    }
    if send::wants(env, class::DENIALS) {
        let what = (Kind::Denied, Cause::Malformed);
        tell(env, &packet, NO_GATE, NOBODY, what);
    }
    enforced(env, Reason::Malformed)
}

/// Returns the reason for a denial in the present mode.
#[inline(always)]
fn enforced<E: Env>(env: &E, denial: Reason) -> Reason {
    if env.monitor() {
        Reason::Monitor
    } else {
        denial
    }
}

/// Reports what happened to a packet at a gate. Not inlined, to keep the event off the stack of callers that make deeper
/// calls.
#[inline(never)]
fn tell<E: Env, A: Address>(
    env: &E,
    segment: &Segment<A>,
    gate: u16,
    user: u32,
    (kind, cause): (Kind, Cause),
) {
    let event = Event {
        time: env.now(),
        until: 0,
        source: segment.source.padded(),
        user,
        gate,
        port: segment.ports.destination(),
        kind: kind as u8,
        cause: cause as u8,
        family: A::FAMILY,
        protocol: segment.protocol,
        step: 0,
        of: 0,
        key: NO_KEY,
    };
    send::send(env, class_of(kind, cause), &event);
}
