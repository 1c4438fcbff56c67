//! Readers of the operator's page that ask again and again: they share what a turn of the registrar's loop has for them,
//! and nobody else waits for more than that. Each attack is run beside its control.

use super::strangers::{ELSEWHERE, connect_from};
use super::*;

/// Connections one after the other: what each says, until the answer's end.
struct Asking {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<usize>>,
}

impl Asking {
    fn start(to: SocketAddr, requests: Vec<Vec<u8>>) -> Asking {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = |request: Vec<u8>| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect_from(ELSEWHERE, to);
                    // It may be dropped for another one's sake.
                    let said = stream.write_all(&request);
                    let said = said.and_then(|()| stream.shutdown(std::net::Shutdown::Write));
                    let answered = said.and_then(|()| stream.read_to_end(&mut Vec::new()));
                    count += usize::from(answered.is_ok_and(|length| length > 0));
                }
                count
            })
        };
        let threads = requests.into_iter().map(thread).collect();
        Asking { stop, threads }
    }

    /// How often there was an answer.
    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().expect("an attacker")).sum()
    }
}

/// Elements in many pools and in a large one.
fn filled(to: SocketAddr, pools: u32, each: u32, large: u32) {
    let mut element = connect(to);
    let many = (0..pools).flat_map(|pool| (1..=each).map(move |id| registration(&format!("bulk{pool}"), id)));
    let large = (1..=large).map(|id| registration("large", id));
    converse(&mut element, many.chain(large), |answer| {
        assert!(matches!(answer, Asap::RegistrationResponse { rejected: false, .. }), "{answer}");
    });
    std::thread::spawn(move || while answer(&mut element).is_ok() {});
}

fn asked(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Seconds in turns of the loop, as the metrics say, and of processor time.
fn turns_and_time(registrar: &Registrar) -> (f64, f64) {
    let text = page(registrar.http, "/metrics");
    let sum = text.lines().find_map(|line| line.strip_prefix("rserpool_turn_seconds_sum "));
    let time = std::fs::read_to_string(format!("/proc/{0}/task/{0}/schedstat", registrar.process.id()));
    let time: f64 = time.expect("it runs").split(' ').next().expect("a number").parse().expect("a number");
    (sum.expect("a sum").parse().expect("a number"), time / 1e9)
}

#[test]
fn answers_of_the_page_keep_nobody_waiting() {
    let _alone = MACHINE.write();
    let registrar = Registrar::start(&[]);
    filled(registrar.asap, 1200, 2, 3000);
    let attacks: [(&str, &[&str]); 4] = [
        ("nobody reads the page", &[]),
        ("three read tables", &["/mib", "/mib", "/mib"]),
        ("three read lists", &["/api/pools?limit=1000", "/api/elements?pool=large&limit=1000", "/api/peers"]),
        ("eight search", &["/api/elements?pool=large&q=nowhere"; 8]),
    ];
    for (what, paths) in attacks {
        let bystander = Bystander::resolving(registrar.asap);
        let (turns, time) = turns_and_time(&registrar);
        let asking = Asking::start(registrar.http, paths.iter().map(|path| asked(path)).collect());
        std::thread::sleep(Duration::from_secs(4));
        let (turns_then, time_then) = turns_and_time(&registrar);
        let count = asking.end();
        let (turns, time) = (turns_then - turns, time_then - time);
        println!("{what}: {count} answers; {turns:.2} s in turns, {time:.2} s of processor time");
        bystander.finish(what);
        assert!(count >= paths.len(), "{what}: only {count} answers");
        // What is made for readers counts as a part of a turn.
        assert!(turns > time / 2.0, "{what}: {turns} s in turns, {time} s of processor time");
    }
    // Others than those who ask all the time have their turn.
    let asking = Asking::start(registrar.http, vec![asked("/mib"); 40]);
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..5 {
        let begin = Instant::now();
        let text = page(registrar.http, "/healthz");
        assert!(text.ends_with("ok\n"), "{text}");
        assert!(begin.elapsed() < busy() * HANG, "{:?}", begin.elapsed());
    }
    asking.end();
}

/// Readers of events that never stop talking: they are not listened to for longer than others wait.
#[test]
fn readers_of_events_who_talk_without_end_keep_nobody_waiting() {
    let _alone = MACHINE.write();
    let registrar = Registrar::start(&[]);
    for attack in [false, true] {
        let what = if attack { "three talk" } else { "nobody talks" };
        let stop = Arc::new(AtomicBool::new(false));
        let talk = || {
            let (stop, http) = (stop.clone(), registrar.http);
            std::thread::spawn(move || {
                let mut stream = connect_from(ELSEWHERE, http);
                stream.set_write_timeout(Some(Duration::from_millis(100))).expect("time-out");
                stream.write_all(&asked("/events")).expect("sent");
                stream.read_exact(&mut [0; 100]).expect("an answer");
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    count += stream.write(&[b'x'; 1 << 18]).unwrap_or(0);
                }
                count
            })
        };
        let bystander = Bystander::resolving(registrar.asap);
        let talking: Vec<_> = (0..if attack { 3 } else { 0 }).map(|_| talk()).collect();
        std::thread::sleep(Duration::from_secs(4));
        stop.store(true, Ordering::Relaxed);
        let said: usize = talking.into_iter().map(|thread| thread.join().expect("a reader")).sum();
        println!("{what}: {said} bytes");
        bystander.finish(what);
    }
}
