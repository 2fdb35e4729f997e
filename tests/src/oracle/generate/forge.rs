//! Changes that an attacker may make to a packet: tags, options, extension headers, fragments, single bytes.

use crate::{
    datagram::{Datagram, Fragment, TCP, UDP},
    oracle::random::Random,
    stream::Step,
};

/// Returns a packet, in most cases unchanged.
pub fn dressed(random: &mut Random<'_>, mut packet: Datagram) -> Step {
    const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];
    if !random.chance(30) {
        return Step::Packet(packet);
    }
    let v4 = packet.source.is_ipv4();
    if random.chance(30) {
        let tags = random.pick(&[1, 1, 2, 2, 3]);
        packet.tags = (0..tags).map(|_| random.pick(&[0x8100, 0x88a8])).collect();
    }
    if v4 && random.chance(40) {
        packet.options = u8::try_from(random.below(11)).expect("at most ten");
    }
    if !v4 && random.chance(60) {
        let headers = random.pick(&[1, 1, 2, 3, 7, 8, 9]);
        packet.extensions = (0..headers)
            .map(|_| (random.pick(&EXTENSIONS), random.pick(&[0, 0, 0, 1, 3])))
            .collect();
    }
    if random.chance(25) {
        packet.fragment = Some(Fragment {
            offset: random.pick(&[0, 0, 0, 1, 2, 100]),
            more: random.chance(70),
        });
    }
    packet.payload = random.pick(&[0, 0, 1, 40]);
    let first = packet.fragment.is_some_and(|fragment| fragment.offset == 0);
    if !v4 && first && random.chance(30) {
        chain_into_padding(random, &mut packet);
    }
    let length = packet.frame().len();
    if random.chance(20) {
        for _ in 0..=random.below(2) {
            packet
                .set
                .push((12 + random.below(length - 12), random.byte()));
        }
    }
    if random.chance(20) {
        packet.cut = Some(14 + random.below(length - 13));
    }
    Step::Packet(packet)
}
/// Makes the extension headers of a fragment continue in the padding, behind the end that the packet states.
fn chain_into_padding(random: &mut Random<'_>, packet: &mut Datagram) {
    const NEXT: [u8; 5] = [0, 60, 58, TCP, UDP];
    packet.protocol = 60;
    packet.payload = 40;
    let behind = packet.frame().len() - 48;
    for header in 0..3 {
        packet.set.push((behind + 8 * header, random.pick(&NEXT)));
    }
    let stated = 14 + 4 * packet.tags.len() + 5;
    packet.set.push((stated, random.pick(&[16, 24, 32, 40])));
}
