//! When sessions end because of the peer's host, and when they don't.

use super::*;
use crate::transport::netns::in_namespace;

/// Sends until there is no room; how many messages that took.
fn fill(world: &World, sd: RawFd, id: SessionId) -> u32 {
    let mut count = 0_u32;
    loop {
        let data = [&count.to_be_bytes()[..], &[7; 4000]].concat();
        match world.library.send(sd, &data, SendOptions { timeout: None, ..options(id) }) {
            Ok(_) => count += 1,
            Err(error) => {
                assert_eq!(code(error), libc::EAGAIN);
                return count;
            }
        }
    }
}

/// Longer than the patience with a host that answers nothing (16 s): both ends send and neither reads.
pub(in crate::socket) fn a_peer_that_does_not_read_is_alive(world: World) {
    let server = world.serve(7, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let counts = [(session, fill(&world, user, 1)), (user, fill(&world, session, 1))];
    thread::sleep(Duration::from_secs(25));
    for (receiver, count) in counts {
        for number in 0..count {
            let (received, bytes) = world.recv(receiver, 5000);
            assert!(matches!(received, Received::Data { end: true, .. }), "{number}: {received:?}");
            assert_eq!(bytes[..4], number.to_be_bytes());
        }
    }
    world.send(user, b"still");
    assert_eq!(world.text(session), "still");
}

/// Nothing of what is sent arrives any more, and nobody says so.
#[test]
fn a_host_that_is_gone_is_noticed() {
    in_namespace(|ip| {
        let world = world();
        let server = world.serve(7, Style::Stream);
        let user = world.connect(Style::Stream);
        let session = world.library.accept(server, LONG).unwrap();
        world.send(user, b"here");
        assert_eq!(world.text(session), "here");
        // 100 + 200 ms.
        let quick = SessionParameters {
            rto_initial: 100,
            rto_min: 100,
            rto_max: 200,
            path_max_rxt: 1,
            ..SessionParameters::default()
        };
        world.library.session_parameters(user, quick).unwrap();
        ip("link set lo down");
        world.send(user, b"lost");
        let begin = std::time::Instant::now();
        let end = world.library.recv(user, &mut [0; 9], LONG);
        assert!(matches!(end, Ok(Received::End { .. })), "{end:?}");
        assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
        // Of the other end, nothing was sent that could have been answered.
        assert_eq!(world.nothing(session), libc::EAGAIN);
        ip("link set lo up");
    });
}

/// What was sent to a slow reader in several frames arrives, however little of it the kernel took in time.
#[test]
fn a_message_of_several_frames_waits_for_its_reader() {
    let world = world();
    let server = world.serve(7, Style::Stream);
    let user = world.connect(Style::Stream);
    let session = world.library.accept(server, LONG).unwrap();
    let big: Vec<u8> = (0..40_u32 << 18).flat_map(u32::to_be_bytes).collect();
    let short = SendOptions { timeout: Some(Duration::from_millis(50)), ..options(1) };
    assert_eq!(world.library.send(user, &big, short).unwrap(), big.len());
    let (received, bytes) = world.recv(session, big.len() + 1);
    assert!(matches!(received, Received::Data { end: true, .. }), "{received:?}");
    assert!(bytes == big);
}
