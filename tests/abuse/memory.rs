//! Memory: what many small things take beside what is accounted for, and that it goes back to the kernel when they leave.

use super::strangers::look;
use super::*;

/// Bytes that the registrar says it keeps for others.
fn accounted(http: SocketAddr) -> u64 {
    let text = page(http, "/metrics");
    let of = |line: &str| {
        let (_, value) = line.strip_prefix("rserpool_bound_used{of=\"bytes of ")?.split_once("\"} ")?;
        value.trim().parse::<f64>().ok()
    };
    let all: Vec<f64> = text.lines().filter_map(of).collect();
    assert!(!all.is_empty(), "{text}");
    all.iter().sum::<f64>() as u64
}

/// Subscriptions to pools that there are not, by short names.
#[test]
fn what_subscriptions_take_is_accounted_for_and_goes_back() {
    const EACH: usize = 6000;
    let _alone = MACHINE.write();
    for attack in [false, true] {
        let registrar = Registrar::start(&[]);
        let mut user = connect(registrar.asap);
        assert!(look(&mut user, "nobody").is_empty());
        let (before, empty) = (registrar.process.memory(), accounted(registrar.http));
        let grown = || registrar.process.memory().saturating_sub(before);
        let streams: Vec<TcpStream> = (0..if attack { 25 } else { 0 })
            .map(|client| {
                let mut stream = connect(registrar.asap);
                let all: Vec<usize> = (0..EACH).collect();
                for some in all.chunks(250) {
                    let question = |pool| resolution(&format!("{client:x}.{pool:x}"), true, Some(u32::MAX));
                    let questions: Vec<Vec<u8>> = some.iter().map(question).collect();
                    stream.write_all(&questions.concat()).expect("sent");
                    some.iter().for_each(|_| drop(answer(&mut stream).expect("an answer")));
                }
                stream
            })
            .collect();
        let (most, kept) = (grown(), (accounted(registrar.http) - empty) >> 10);
        println!("attack: {attack}: {most} KiB grown, {kept} KiB accounted for");
        assert!(most <= kept + kept / 4 + (12 << 10), "{most} KiB grown, {kept} KiB accounted for");
        assert!(!attack || kept > 40 << 10, "{kept} KiB accounted for");
        for stream in streams {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
        let end = Instant::now() + busy() * Duration::from_secs(30);
        while grown() > most / 4 + (8 << 10) {
            assert!(Instant::now() < end, "{} KiB of {most} are left", grown());
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("attack: {attack}: {} KiB left", grown());
        assert!(look(&mut user, "nobody").is_empty());
    }
}
