//! What the roles of a peer's certificate let it do.

use super::*;
use crate::machine::trust::Roles;
use crate::wire::CauseCode;
use std::sync::Arc;

const PEER: RegistrarId = RegistrarId(0x6000);

impl Bench {
    /// Somebody connects who has proved to be all that.
    fn accept_as(&mut self, service: Service, roles: &[&str]) -> (LinkId, Vec<Effect>) {
        let link = LinkId(self.next);
        self.next += 1;
        self.services.insert(link, service);
        let ends = LinkEnds {
            service,
            protocol: LinkProtocol::Tcp,
            peer: vec![address("10.0.0.9:40001")],
            local: vec![address("10.0.0.1:3864")],
            roles: Some(Arc::new(Roles::parse(roles.iter().copied()))),
        };
        (link, self.change(link, LinkChange::Up(ends)))
    }

    fn serving_in(scope: &str) -> Bench {
        Bench::new(Config { scope: Some(scope.into()), ..config() }).0
    }
}

/// The cause of the answer to `message`, `None` if that is no rejection.
fn cause(effects: &[Effect]) -> Option<CauseCode> {
    effects.iter().find_map(|effect| match effect {
        Effect::Asap(_, Asap::RegistrationResponse { error, .. })
        | Effect::Asap(_, Asap::DeregistrationResponse { error, .. })
        | Effect::Asap(_, Asap::HandleResolutionResponse { error, .. }) => {
            error.as_ref().map(|error| error.code())
        }
        _ => None,
    })
}

#[test]
fn only_registrars_of_the_scope_speak_enrp() {
    for (roles, admitted) in [
        (&["rserpool:registrar:here"][..], true),
        (&["rserpool:registrar"], true),
        (&["rserpool:registrar:there"], false),
        (&["rserpool:element:*", "rserpool:user", "rserpool:operator"], false),
        (&[], false),
    ] {
        let mut bench = Bench::serving_in("here");
        let (link, effects) = bench.accept_as(Service::Enrp, roles);
        assert_eq!(effects.contains(&Close(link)), !admitted, "{roles:?}: {effects:?}");
        let effects = bench.enrp(link, PEER, update(1, PEER));
        assert_eq!(bench.content("echo").len(), usize::from(admitted), "{roles:?}: {effects:?}");
    }
}

#[test]
fn an_element_registers_in_its_pools_only() {
    for (roles, allowed) in [
        (&["rserpool:element:echo"][..], true),
        (&["rserpool:element:ec*"], true),
        (&["rserpool:element:other"], false),
        (&["rserpool:user", "rserpool:operator", "rserpool:registrar:here"], false),
        (&[], false),
    ] {
        let mut bench = Bench::serving_in("here");
        let (link, _) = bench.accept_as(Service::Asap, roles);
        let effects = bench.asap(link, registration(1));
        let expected = (!allowed).then_some(CauseCode::SECURITY);
        assert_eq!(cause(&effects), expected, "{roles:?}: {effects:?}");
        assert_eq!(bench.content("echo").len(), usize::from(allowed), "{roles:?}");
    }
}

/// From the address that the element registered from, which is enough where there are no certificates.
#[test]
fn nobody_else_deregisters_changes_or_vouches_for_it() {
    let mut bench = Bench::serving_in("here");
    let (owner, _) = bench.accept_as(Service::Asap, &["rserpool:element:echo"]);
    bench.asap(owner, registration(1));
    let (other, _) = bench.accept_as(Service::Asap, &["rserpool:element:other", "rserpool:user"]);
    let effects = bench.asap(other, Asap::Deregistration { handle: pool("echo"), id: PeId(1) });
    assert_eq!(cause(&effects), Some(CauseCode::SECURITY));
    let mut moved = element(1);
    moved.transport = transport(Protocol::Tcp, TransportUse::DataPlusControl, "10.0.0.9:666");
    let effects = bench.asap(other, Asap::Registration { handle: pool("echo"), element: moved });
    assert_eq!(cause(&effects), Some(CauseCode::SECURITY));
    let key = bench.registrar.handlespace().find(&pool("echo"), PeId(1)).expect("still there");
    let found = bench.registrar.handlespace().get(key).expect("still there").to_element();
    assert_eq!(found.transport.port(), 7);
    // Nor does its answer to the owner's keep-alive count.
    bench.wait(ms(700));
    bench.asap(other, Asap::EndpointKeepAliveAck { handle: pool("echo"), id: PeId(1) });
    bench.wait(ms(2000));
    assert_eq!(bench.content("echo"), []);
}

#[test]
fn users_ask_for_their_pools_only() {
    for (roles, expected) in [
        (&["rserpool:user"][..], None),
        (&["rserpool:user:echo"], None),
        (&["rserpool:operator"], None),
        (&["rserpool:element:echo"], None),
        (&["rserpool:user:other"], Some(CauseCode::SECURITY)),
        (&[], Some(CauseCode::SECURITY)),
    ] {
        for subscribe in [false, true] {
            let mut bench = Bench::serving_in("here");
            let (owner, _) = bench.accept_as(Service::Asap, &["rserpool:element:echo"]);
            bench.asap(owner, registration(1));
            let (user, _) = bench.accept_as(Service::Asap, roles);
            let items = subscribe.then_some(u32::MAX);
            let effects = bench.asap(user, Asap::HandleResolution { subscribe, handle: pool("echo"), items });
            assert_eq!(cause(&effects), expected, "{roles:?}: {effects:?}");
            // Nor do reports of those count who may not ask.
            let report = Asap::EndpointUnreachable { handle: pool("echo"), id: PeId(1) };
            let asked = bench.asap(user, report).contains(&keep_alive(owner, false, 1));
            assert_eq!(asked, expected.is_none(), "{roles:?}");
        }
    }
}
