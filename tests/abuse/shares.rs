//! Everybody has a share: one host that takes all places, elements or peers, and mentors that never end. Each attack is
//! run beside its control.

use super::strangers::{
    ELSEWHERE, Peer, connect_from, element, elsewhere, look, next_enrp, serves_beside, waited_for,
};
use super::*;
use rserpool::wire::enrp::UpdateAction;
use rserpool::wire::{Enrp, EnrpMessage, ServerInformation};

/// Connections that each asked something once, and then stay.
#[test]
fn who_asked_once_and_stays_locks_out_nobody() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&["-maxconnections=60"]);
        let _first = element(registrar.asap, "first", 1);
        let mut idle = Vec::new();
        for _ in 0..if attack { 150 } else { 10 } {
            let mut stream = connect_from(ELSEWHERE, registrar.asap);
            // It may be closed as it comes.
            if stream.write_all(&resolution("first", false, None)).is_ok() {
                let _ = answer(&mut stream);
            }
            idle.push(stream);
        }
        // Whoever comes from elsewhere has a place, and who registered keeps its own.
        for id in 1..=20 {
            let _served = element(registrar.asap, "second", id);
            let mut user = connect(registrar.asap);
            assert_eq!(look(&mut user, "first").len(), 1, "attack: {attack}");
        }
    }
}

/// One host registers over many connections whatever each of them may have.
#[test]
fn one_host_does_not_take_all_elements() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&["-maxelements=400"]);
        let mut greedy = Vec::new();
        let mut taken = 0;
        for number in 0..if attack { 30 } else { 1 } {
            let mut stream = connect_from(ELSEWHERE, registrar.asap);
            let all = (0..250).map(|id| registration("greedy", 1000 * number + id + 1));
            converse(&mut stream, all, |answer| {
                taken += u32::from(matches!(answer, Asap::RegistrationResponse { rejected: false, .. }));
            });
            greedy.push(stream);
        }
        println!("attack: {attack}: {taken} taken");
        for id in 1..=10 {
            element(registrar.asap, "mine", id);
        }
    }
}

/// Invented registrars of one host, each with an element so that it keeps its place.
#[test]
fn invented_registrars_with_elements_lock_out_nobody() {
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&[]);
        let mut invented = Vec::new();
        for number in 0..if attack { 280 } else { 2 } {
            let liar = Peer::join(registrar.enrp, 0x0bad_3000 + number);
            liar.update(UpdateAction::Add, "theirs", elsewhere(number + 1, liar.id));
            invented.push(liar);
        }
        let peer = format!("-peer={}", registrar.enrp);
        let other = Registrar::start(&[&peer]);
        let _element = element(other.asap, "there", 1);
        let mut user = connect(registrar.asap);
        waited_for("what the other registrar has", || look(&mut user, "there").len() == 1);
    }
}

/// A mentor that tells of one more element each second, for ever.
#[test]
fn a_mentor_that_tells_next_to_nothing_is_given_up() {
    serves_beside(drip);
}

fn drip(mut stream: TcpStream, for_ever: bool) {
    let id = RegistrarId(0x0bad_0004);
    let transport =
        Transport::new(Protocol::Tcp, TransportUse::DataOnly, 9, vec![Ipv4Addr::LOCALHOST.into()]);
    let server = Some(ServerInformation { id, transports: vec![transport] });
    let presence = Enrp::Presence { reply_required: false, checksum: None, server };
    let mut told = 0;
    let say = |stream: &mut TcpStream, body| {
        let message = EnrpMessage { sender: id, receiver: RegistrarId(0), body };
        stream.write_all(&message.encode())
    };
    stream.set_read_timeout(None).expect("option");
    let _ = say(&mut stream, presence.clone());
    while let Ok(message) = next_enrp(&mut stream) {
        let answer = match message {
            Enrp::HandleTableRequest { .. } => {
                told += 1;
                std::thread::sleep(Duration::from_secs(u64::from(for_ever)));
                let pools = vec![(handle("theirs"), vec![elsewhere(told, id)])];
                let _ = say(&mut stream, presence.clone());
                Enrp::HandleTableResponse { rejected: false, more: for_ever, pools }
            }
            Enrp::ListRequest => Enrp::ListResponse { rejected: false, servers: Vec::new() },
            _ => continue,
        };
        if say(&mut stream, answer).is_err() {
            return;
        }
    }
}
